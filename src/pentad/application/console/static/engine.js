// The engine page: load, KV memory and latencies of each model, read while the page is visible.

import { call } from "./api.js";
import { histogram, timeChart } from "./charts.js";
import { make, seconds, visible } from "./dom.js";

const EVERY_MS = 1000;
const WINDOW_S = 300;
/** Readings by model, kept while the console is open. */
const kept = new Map();

export function open(view) {
  document.title = "Engine · Pentad";
  const trouble = make("p", { class: "trouble", role: "alert", hidden: true });
  const safe = make("p", { class: "trouble", role: "status", hidden: true });
  const classes = make("div", { class: "classes", hidden: true });
  const models = make("div", "models", make("p", "soft", "Waiting for the first reading."));
  const page = { trouble, safe, classes, models, shown: new Map(), before: null, closed: false };
  view.replaceChildren(make("div", "engine", make("h1", "hidden", "Engine"), trouble, safe, classes, models));
  const timer = setInterval(() => read(page), EVERY_MS);
  read(page);
  return () => {
    page.closed = true;
    clearInterval(timer);
    for (const each of page.shown.values()) each.charts.forEach((chart) => chart.close());
  };
}

async function read(page) {
  if (document.hidden) return;
  let report;
  try {
    report = await call("GET", "/v1/engine");
  } catch (error) {
    if (!page.closed) say(page, error.message);
    return;
  }
  if (page.closed) return;
  say(page, report.trouble);
  showSafeMode(page, report.safe_mode ?? []);
  showClasses(page, report.classes ?? []);
  for (const model of report.models) {
    if (!page.shown.has(model.name)) page.shown.set(model.name, section(model));
  }
  const sections = report.models.map((model) => page.shown.get(model.name).element);
  if (page.models.children.length !== sections.length || sections.some((each, i) => page.models.children[i] !== each))
    page.models.replaceChildren(...sections);
  for (const model of report.models) update(page.shown.get(model.name), model, readings(model, report));
}

function say(page, text) {
  page.trouble.hidden = !text;
  if (page.trouble.textContent !== (text ?? "")) page.trouble.textContent = visible(text ?? "");
}

/** Why the router does not trust its predictions now. */
function showSafeMode(page, reasons) {
  page.safe.hidden = reasons.length === 0;
  const text = `The router is in its safe mode: ${reasons.join("; ")}`;
  if (page.safe.textContent !== text) page.safe.textContent = visible(text);
}

/** How each service class is kept, and what is left of its error budget. */
function showClasses(page, classes) {
  page.classes.hidden = classes.length === 0;
  const percent = (share) => (share === null ? "no request yet" : `${(100 * share).toFixed(1)}%`);
  const lines = classes.map((each) =>
    make(
      "p",
      each.error_budget_left < 0 ? "trouble" : "soft",
      visible(
        `${each.name}: ${percent(each.attainment)} kept of ${percent(each.target)} aimed at, ` +
          `${percent(each.error_budget_left)} of the error budget left`,
      ),
    ),
  );
  page.classes.replaceChildren(...lines);
}

/** Adds the present numbers of a model to those kept, and gives those of the window. */
function readings(model, report) {
  const all = (kept.get(model.name) ?? []).filter((each) => each.at <= report.at_s && each.at > report.at_s - WINDOW_S);
  const before = all.at(-1);
  const elapsed = before ? report.at_s - before.at : 0;
  if (before && elapsed < EVERY_MS / 2000) return all;
  const rate = (name) =>
    before && elapsed > 0 ? Math.max(0, ((model.stats[name] ?? 0) - (before.stats[name] ?? 0)) / elapsed) : 0;
  all.push({
    at: report.at_s,
    stats: model.stats,
    rates: {
      generated: rate("generation_tokens_total"),
      prompt: rate("prompt_tokens_total"),
      busy: Math.min(1, rate("step_seconds_total")),
    },
  });
  kept.set(model.name, all);
  return all;
}

function section(model) {
  const facts = [
    model.kind === "embed" ? "embeddings" : "text",
    model.remote ? "remote" : "local",
    model.context_length ? `${model.context_length.toLocaleString()} tokens of context` : null,
  ];
  const shown = {
    tiles: make("dl", "tiles"),
    charts: [],
    top: 0,
    latencies: make("div", "pair"),
    counters: make("tbody"),
  };
  const plots = make("div", "pair");
  if (model.stats.kv_blocks) {
    const parts = [
      { label: "held by running requests", colour: "--kv-held" },
      { label: "reusable prefixes", colour: "--kv-reusable" },
      { label: "free", colour: "--kv-free" },
    ];
    shown.memory = timeChart(`KV memory: ${model.stats.kv_blocks.toLocaleString()} blocks`, parts, {
      stacked: true,
      top: () => shown.top,
      write: (v) => Math.round(v).toLocaleString(),
      windowS: WINDOW_S,
    });
    shown.charts.push(shown.memory);
  }
  if (model.stats.generation_tokens_total !== undefined) {
    const parts = [
      { label: "generated", colour: "--decode" },
      { label: "prompt", colour: "--prefill" },
    ];
    shown.speed = timeChart("Tokens per second", parts, {
      write: (v) => (v > 0 && v < 10 ? v.toFixed(1) : Math.round(v).toLocaleString()),
      windowS: WINDOW_S,
    });
    shown.charts.push(shown.speed);
  }
  plots.append(...shown.charts.map((chart) => chart.figure));
  const counters = make("details", "", make("summary", "", "All counters"), make("table", "", shown.counters));
  const heading = make("h2", "", visible(model.name), make("span", "soft", `  ${facts.filter(Boolean).join(" · ")}`));
  shown.element = make(
    "section",
    { class: "model card", "aria-label": model.name },
    heading,
    shown.tiles,
    plots,
    model.kind === "generate" ? shown.latencies : null,
    counters,
  );
  return shown;
}

const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)}%`;
const share = (part, whole) => (whole ? part / whole : 0);

/** Label, value, and how it is written; left out where the backend does not count it. */
const TILES = [
  ["Running", (s) => s.running, String],
  ["Waiting", (s) => s.waiting, String],
  ["Busy", (s, r) => (s.step_seconds_total === undefined ? undefined : r.busy), percent],
  ["KV in use", (s) => s.kv_usage_fraction, percent],
  [
    "Prompt from cache",
    (s) =>
      s.prefix_query_tokens_total === undefined
        ? undefined
        : share(s.prefix_hit_tokens_total, s.prefix_query_tokens_total),
    percent,
  ],
  [
    "Overhead per step",
    (s) => (s.overhead_seconds_total === undefined ? undefined : share(s.overhead_seconds_total, s.steps_total)),
    seconds,
  ],
  ["Preemptions", (s) => s.preemptions_total, String],
  ["Requests", (s) => s.requests_total ?? s.requests_finished_total, (v) => v.toLocaleString()],
];

function update(shown, model, all) {
  const now = all.at(-1);
  const tiles = TILES.map(([label, value, write]) => [label, value(now.stats, now.rates), write]).filter(
    ([, value]) => value !== undefined,
  );
  shown.tiles.replaceChildren(
    ...tiles.map(([label, value, write]) => make("div", "", make("dt", "", label), make("dd", "", write(value)))),
  );
  shown.top = model.stats.kv_blocks ?? 0;
  const of = (values) => all.map((each) => ({ at: each.at, values: values(each) }));
  shown.memory?.show(
    of(({ stats: s }) => [
      s.kv_blocks_held,
      s.kv_blocks_reusable ?? 0,
      s.kv_blocks - s.kv_blocks_held - (s.kv_blocks_reusable ?? 0),
    ]),
    now.at,
  );
  shown.speed?.show(
    of(({ rates }) => [rates.generated, rates.prompt]),
    now.at,
  );
  const key = JSON.stringify([model.ttft, model.inter_token, model.targets]);
  if (shown.key !== key) {
    shown.key = key;
    shown.latencies.replaceChildren(
      histogram("Time to the first token, since the start", model.ttft, model.targets.ttft_s),
      histogram("Time between tokens, since the start", model.inter_token, model.targets.inter_token_s),
    );
  }
  const rows = Object.entries(model.stats).map(([name, value]) =>
    make(
      "tr",
      "",
      make("th", { scope: "row" }, name),
      make("td", "number", (Math.round(value * 1000) / 1000).toLocaleString()),
    ),
  );
  shown.counters.replaceChildren(...rows);
}
