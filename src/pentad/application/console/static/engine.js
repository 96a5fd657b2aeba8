// Gauges of each model's engine, read while this section is open and the page is visible.

import { call } from "./api.js";
import { $, make, seconds, sparkline } from "./dom.js";

const EVERY_MS = 1000;
const KEPT = 120;

/** Label, value from (now, before, elapsed seconds), and how it is written. */
const CARDS = [
  ["Running", (now) => now.running, String],
  ["Waiting", (now) => now.waiting, String],
  ["Generated tokens/s", (now, then, s) => rate(now, then, "generation_tokens_total", s), (v) => v.toFixed(1)],
  ["Prompt tokens/s", (now, then, s) => rate(now, then, "prompt_tokens_total", s), (v) => v.toFixed(1)],
  ["KV cache in use", (now) => now.kv_usage_fraction, percent],
  ["KV blocks kept for reuse", (now) => now.kv_blocks_cached, String],
  ["Prompt tokens from cache", (now) => share(now.prefix_hit_tokens_total, now.prefix_query_tokens_total), percent],
  ["Busy", (now, then, s) => atMostOne(rate(now, then, "step_seconds_total", s)), percent],
  ["Engine overhead per step", (now) => share(now.overhead_seconds_total, now.steps_total), seconds],
  ["Preemptions", (now) => now.preemptions_total, String],
];

const history = new Map();
const opened = new Set();
let timer = null;
let before = null;

export function enter() {
  timer ??= setInterval(read, EVERY_MS);
  read();
}

export function leave() {
  clearInterval(timer);
  timer = null;
  before = null;
}

function percent(value) {
  return `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`;
}

function share(part, whole) {
  return whole ? part / whole : part === undefined ? undefined : 0;
}

function rate(now, then, name, elapsed) {
  if (now[name] === undefined) return undefined;
  return then && elapsed > 0 ? Math.max(0, (now[name] - then[name]) / elapsed) : 0;
}

/** A step counts when it ends, so a reading may hold more step time than passed since the last. */
function atMostOne(value) {
  return value === undefined ? undefined : Math.min(1, value);
}

async function read() {
  if (document.hidden) return;
  let state;
  try {
    state = await call("GET", "/console/stats");
  } catch (error) {
    $("gauges").replaceChildren(make("p", "empty", error.message));
    return;
  }
  const elapsed = before ? state.at_s - before.at_s : 0;
  $("gauges").replaceChildren(
    ...(state.trouble ? [make("p", "notice", state.trouble)] : []),
    ...state.models.map((model) => section(model, before?.models.find((m) => m.name === model.name), elapsed)),
  );
  before = state;
}

function section(model, then, elapsed) {
  const facts = [model.kind, model.remote ? "remote" : "local"];
  if (model.context_length) facts.push(`${model.context_length} tokens of context`);
  const cards = make("div", "cards");
  for (const [label, value, write] of CARDS) {
    const number = value(model.stats, then?.stats, elapsed);
    if (number !== undefined) cards.append(card(`${model.name}/${label}`, label, number, write));
  }
  const heading = make("h2", "", model.name, make("span", "empty", `  ${facts.join(" · ")}`));
  const rows = Object.entries(model.stats).map(([name, value]) =>
    make("tr", "", make("td", "", name), make("td", "", String(Math.round(value * 1000) / 1000))),
  );
  const whole = make("details", "", make("summary", "", "All counters"), make("table", "", make("tbody", "", ...rows)));
  whole.open = opened.has(model.name);
  whole.addEventListener("toggle", () => (whole.open ? opened.add(model.name) : opened.delete(model.name)));
  return make("section", "", heading, cards, ...(rows.length ? [whole] : []));
}

function card(id, label, number, write) {
  const values = history.get(id) ?? [];
  values.push(number);
  if (values.length > KEPT) values.shift();
  history.set(id, values);
  return make("div", "card", make("div", "name", label), make("div", "value", write(number)), sparkline(values));
}
