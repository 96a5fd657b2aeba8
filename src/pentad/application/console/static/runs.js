// Agent runs: start one, list them, watch one event by event, see which layer took the time.

import { call, events } from "./api.js";
import { $, make, notice, seconds, svg, visible } from "./dom.js";

const LIST_MS = 3000;
let timer = null;
let watched = null;

export function start() {
  $("start").addEventListener("submit", (event) => {
    event.preventDefault();
    begin();
  });
}

export function enter() {
  timer ??= setInterval(list, LIST_MS);
  list();
}

export function leave() {
  clearInterval(timer);
  timer = null;
}

/** Fills the list of agents that can be started, or hides the section where there are none. */
export async function offer(state) {
  $("tab-runs").hidden = !state.agents;
  if (!state.agents) return;
  const agents = (await call("GET", "/v1/agents")).data;
  $("agent").replaceChildren(...agents.map((agent) => new Option(agent.name, agent.name)));
}

async function begin() {
  try {
    const run = await call("POST", "/v1/runs", { agent: $("agent").value, goal: $("goal").value.trim() });
    $("goal").value = "";
    await list();
    watch(run.id);
  } catch (error) {
    notice(error.message);
  }
}

async function list() {
  if (document.hidden) return;
  try {
    const runs = (await call("GET", "/v1/runs?limit=50")).data;
    const rows = runs.map(row);
    $("run-list").replaceChildren(...(rows.length ? rows : [make("li", "empty", "No runs yet.")]));
  } catch (error) {
    notice(error.message);
  }
}

function row(run) {
  const when = new Date(run.created_at * 1000).toLocaleTimeString();
  const button = make(
    "button",
    "",
    make("span", "goal", visible(run.goal)),
    make("span", "meta", `${run.status} · ${visible(run.agent)} · ${when}`),
  );
  if (watched?.id === run.id) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => watch(run.id));
  return make("li", "", button);
}

async function watch(id) {
  watched?.stop.abort();
  const mine = { id, stop: new AbortController(), view: frame(id), origin: null };
  watched = mine;
  list();
  try {
    for await (const { data } of events("GET", `/v1/runs/${id}/events`, undefined, mine.stop.signal)) {
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      show(mine, event);
    }
    await explain(mine);
    list();
  } catch (error) {
    if (error.name !== "AbortError" && watched === mine) notice(error.message);
  }
}

function frame(id) {
  const view = {
    goal: make("h3", "", ""),
    status: make("span", "pill", "running"),
    cancel: make("button", "danger", "Cancel"),
    time: make("div", ""),
    plan: make("div", ""),
    answer: make("div", "answer"),
    trace: make("ol", "trace"),
    live: null,
  };
  view.answer.hidden = true;
  view.cancel.addEventListener("click", async () => {
    view.cancel.disabled = true;
    await call("POST", `/v1/runs/${id}/cancel`, {}).catch((error) => notice(error.message));
  });
  const head = make("header", "", make("div", "", view.goal, make("span", "empty", id)), make("div", "tools", view.status, view.cancel));
  $("run").replaceChildren(head, view.time, view.answer, view.trace);
  return view;
}

function show(run, event) {
  const view = run.view;
  run.origin ??= event.at_s;
  if (event.type === "text_streamed") {
    live(view, event);
    return;
  }
  view.live?.item.remove();
  view.live = null;
  if (event.type === "run_started") view.goal.textContent = visible(event.goal);
  if (event.type === "run_ended") {
    view.status.textContent = event.status;
    view.status.className = `pill ${event.status === "answered" ? "good" : "bad"}`;
    view.cancel.hidden = true;
    view.answer.hidden = false;
    view.answer.textContent = visible([event.answer, event.error].filter(Boolean).join("\n\n"));
  }
  const detail = describe(event);
  if (detail !== null) view.trace.append(line(event, event.at_s - run.origin, detail));
}

function live(view, event) {
  if (!view.live) {
    const detail = make("div", "detail");
    const item = make("li", "event", make("span", "when", "…"), make("span", "what", "thinking"), detail);
    view.live = { item, detail };
    view.trace.append(item);
  }
  view.live.detail.append(visible(event.text));
}

function line(event, at, detail) {
  const name = event.type.replaceAll("_", " ");
  return make(
    "li",
    `event ${event.type}`,
    make("span", "when", seconds(at)),
    make("span", "what", name),
    make("div", "detail", visible(detail)),
  );
}

/** What an event says to a person; null for those that only matter to the journal. */
function describe(event) {
  switch (event.type) {
    case "run_started":
      return `agent ${event.agent?.name ?? ""}`;
    case "run_resumed":
      return `${event.in_doubt ?? 0} tool calls in doubt`;
    case "recalled":
      return (event.items ?? []).map((item) => item[1]).join("\n");
    case "compacted":
      return `${event.reason}: ${event.before_tokens} to ${event.after_tokens} tokens`;
    case "planned":
      return (event.goals ?? []).map(([tool, task], i) => `${i + 1}. ${task}${tool ? ` [${tool}]` : ""}`).join("\n");
    case "model_answered": {
      const calls = (event.tool_calls ?? []).map((each) => `${each.name}(${each.arguments})`);
      const usage = event.usage ?? {};
      const tokens = `${usage.prompt_tokens ?? 0} + ${usage.completion_tokens ?? 0} tokens`;
      return [event.text, ...calls, tokens].filter(Boolean).join("\n");
    }
    case "model_failed":
      return `${event.error}${event.retry ? " (trying again)" : ""}`;
    case "tool_intended":
      return `${event.tool} ${event.arguments}`;
    case "tool_returned":
      return `${event.status === "ok" || !event.status ? "" : `[${event.status}] `}${event.content}`;
    case "step_ended":
      return [event.outcome, event.detail].filter(Boolean).join(": ");
    case "run_ended":
      return event.status;
    default:
      return null;
  }
}

async function explain(run) {
  const told = await call("GET", `/v1/runs/${run.id}/explain`);
  const parts = [...told.layers, { layer: "residual", seconds: told.residual_s }];
  const whole = parts.reduce((sum, part) => sum + part.seconds, 0) || 1;
  const picture = svg("svg", { viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img" });
  picture.setAttribute("aria-label", parts.map((part) => `${part.layer} ${seconds(part.seconds)}`).join(", "));
  let left = 0;
  for (const part of parts) {
    const width = (1000 * part.seconds) / whole;
    picture.append(svg("rect", { class: `bar-${part.layer}`, x: left, y: 0, width, height: 20 }));
    left += width;
  }
  const legend = parts.map((part) =>
    make(
      "li",
      "",
      make("span", `swatch ${part.layer}`),
      `${part.layer === "residual" ? "unattributed" : part.layer} ${seconds(part.seconds)}`,
    ),
  );
  const usage = `${told.model_calls} model calls · ${told.prompt_tokens} prompt tokens (${told.cached_tokens} cached) · ${told.completion_tokens} generated · ${told.tool_calls} tool calls`;
  run.view.time.replaceChildren(
    make("div", "timeline", picture),
    make("ul", "legend", ...legend),
    make("p", "empty", usage),
  );
}
