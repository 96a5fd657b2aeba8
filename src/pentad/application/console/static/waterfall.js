// The waterfall of a run: a row per model call, tool call and wait, on one axis of seconds.

import { make, seconds, short } from "./dom.js";

const KINDS = {
  planning: "planning",
  memory: "memory",
  queue: "queue",
  prefill: "prefill",
  decode: "decode",
  model: "model",
  tool: "tool",
  waiting: "waiting",
  other: "other",
};
/** Kinds that share the row of their step, in the order in which they are painted. */
const SHARED = ["other", "model", "planning", "memory", "queue", "prefill", "decode"];

/** The bars that events alone tell of, for what the server has not explained yet. */
function liveBars(run, told, now) {
  const known = told.reduce((most, bar) => Math.max(most, bar.end_s), 0);
  const bars = [];
  const add = (step, kind, name, from, to, attempt) => {
    if (from === null || from === undefined) return;
    const bar = { step, kind, name, attempt, start_s: Math.max(0, from - run.began), end_s: (to ?? now) - run.began };
    const open = to === null || to === undefined;
    if (open || bar.start_s >= known - 0.001) bars.push({ ...bar, end_s: Math.max(bar.start_s, bar.end_s), open });
  };
  for (const step of run.steps.values()) {
    for (const ask of step.asks)
      add(step.number, "model", ask.purpose, ask.asked, ask.answered ?? run.ended, ask.attempt);
    for (const tool of step.tools.values()) {
      for (const wait of tool.waits) add(step.number, "waiting", "a person", wait.asked, wait.answered ?? run.ended);
      add(step.number, "tool", tool.tool, tool.intended, tool.returned ?? run.ended);
    }
  }
  return bars;
}

function rowsOf(run, told, now) {
  const rows = new Map();
  for (const bar of [...told, ...liveBars(run, told, now)]) {
    const shared = SHARED.includes(bar.kind);
    const key = shared ? `${bar.step}` : `${bar.step} ${bar.kind} ${bar.name} ${bar.start_s}`;
    if (!rows.has(key)) rows.set(key, { key, step: bar.step, shared, kind: bar.kind, bars: [] });
    rows.get(key).bars.push(bar);
  }
  const made = [...rows.values()];
  for (const row of made) {
    row.start = Math.min(...row.bars.map((bar) => bar.start_s));
    row.end = Math.max(...row.bars.map((bar) => bar.end_s));
    row.bars.sort((a, b) => SHARED.indexOf(a.kind) - SHARED.indexOf(b.kind) || a.start_s - b.start_s);
  }
  return made.sort((a, b) => a.start - b.start || a.end - b.end);
}

/** Round numbers from 0 up to `most`, about six. */
export function ticks(most) {
  const rough = most / 6 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** The picture; `choose(step)` is called for a pressed row. */
export function waterfall(run, told, now, chosen, choose) {
  const rows = rowsOf(run, told, now);
  if (!rows.length)
    return make(
      "p",
      "soft",
      run.ended === null ? "Nothing has been timed yet." : "The run ended before anything could be timed.",
    );
  const most = Math.max(...rows.map((row) => Math.max(row.end, expectation(row)?.end ?? 0)), 1e-6);
  const at = (value) => `${(100 * Math.max(0, value)) / most}%`;
  const axis = make(
    "div",
    { class: "wf-axis", "aria-hidden": "true" },
    ticks(most).map((tick) => placed(make("span", "", seconds(tick)), at(tick))),
  );
  const items = rows.map((row) => make("li", "", rowButton(run, row, at, row.step === chosen, choose)));
  const kinds = Object.keys(KINDS).filter((kind) => rows.some((row) => row.bars.some((bar) => bar.kind === kind)));
  const legend = kinds.map((kind) => make("li", "", make("span", `swatch k-${kind}`), KINDS[kind]));
  const marked = rows.some((row) => expectation(row) !== null);
  if (marked) legend.push(make("li", "", make("span", "swatch expected"), "expected end"));
  return make(
    "div",
    "waterfall",
    make("ul", "legend", legend),
    axis,
    make("ol", { class: "wf-rows", "aria-label": "Waterfall" }, items),
    limitList(rows),
  );
}

function placed(element, left, width) {
  element.style.left = left;
  if (width !== undefined) element.style.width = width;
  return element;
}

function rowButton(run, row, at, here, choose) {
  const purpose = run.steps.get(row.step)?.asks.find((ask) => ask.purpose !== "tool")?.purpose;
  const name = row.shared ? (purpose ?? row.bars[0].name) : row.bars[0].name;
  const expected = expectation(row);
  const track = make(
    "span",
    "wf-track",
    row.bars.map((bar) =>
      placed(
        make("span", `wf-bar k-${bar.kind}${bar.open ? " open" : ""}`),
        at(bar.start_s),
        at(bar.end_s - bar.start_s),
      ),
    ),
  );
  if (expected !== null) track.append(placed(make("span", "wf-expected"), at(expected.end)));
  const spoken = row.bars.map((bar) => `${KINDS[bar.kind]} ${seconds(bar.end_s - bar.start_s)}`).join(", ");
  const title = expected === null ? spoken : `${spoken}; expected ${seconds(expected.seconds)}`;
  return make(
    "button",
    {
      class: "wf-row",
      type: "button",
      title,
      "data-key": `wf ${row.key}`,
      "aria-pressed": String(here),
      onclick: () => choose(row.step),
    },
    make("span", "wf-name", make("span", "hidden", "Step "), make("b", "", `${row.step}`), ` ${short(name, 30)}`),
    track,
    make("span", "wf-time", seconds(row.end - row.start)),
  );
}

/** What bound any of the calls, in words. */
function limitList(rows) {
  const told = rows.flatMap((row) =>
    row.bars.filter((bar) => bar.limit).map((bar) => `step ${row.step}, ${bar.name}: ${bar.limit}`),
  );
  if (!told.length) return null;
  const items = [...new Set(told)].map((each) => make("li", "", short(each, 300)));
  return make("details", { class: "limits", open: true }, make("summary", "", "Bound by"), make("ul", "", items));
}

/** When the row would have ended had its parts taken what they were expected to; null if unknown. */
function expectation(row) {
  const known = row.bars.filter((bar) => bar.expected_s !== null && bar.expected_s !== undefined);
  if (!known.length) return null;
  const expected = known.reduce((sum, bar) => sum + bar.expected_s, 0);
  return { seconds: expected, end: Math.min(...known.map((bar) => bar.start_s)) + expected };
}

/** Expected against actual and what bound each part of one step, as a table. */
export function stepTimes(told, number) {
  const parts = new Map();
  for (const bar of told.filter((each) => each.step === number)) {
    const key = `${bar.kind} ${bar.name} ${bar.attempt ?? ""}`;
    const part = parts.get(key) ?? { ...bar, took: 0, expected: null, limit: null };
    part.took += bar.end_s - bar.start_s;
    if (bar.expected_s !== null) part.expected = (part.expected ?? 0) + bar.expected_s;
    part.limit ??= bar.limit;
    parts.set(key, part);
  }
  const bars = [...parts.values()];
  if (!bars.length) return null;
  const rows = bars.map((bar) =>
    make(
      "tr",
      "",
      make(
        "td",
        "",
        make("span", `swatch k-${bar.kind}`),
        short(bar.name === bar.kind ? bar.kind : `${bar.kind}: ${bar.name}`, 40),
      ),
      make("td", "number", seconds(bar.took)),
      make("td", "number", bar.expected === null ? "–" : seconds(bar.expected)),
      make("td", "", short(bar.limit ?? "", 60)),
    ),
  );
  const head = ["part", "took", "expected", "bound by"].map((name) => make("th", { scope: "col" }, name));
  return make(
    "div",
    { class: "table", tabindex: 0, role: "group", "aria-label": "Times of this step" },
    make("table", "", make("thead", "", make("tr", "", head)), make("tbody", "", rows)),
  );
}
