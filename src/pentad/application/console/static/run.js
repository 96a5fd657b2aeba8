// The page of one run: followed as it happens, over cut connections and reloads.

import { call, follow } from "./api.js";
import { approvals } from "./approval.js";
import { count, make, moment, notice, pressed, seconds, short, visible } from "./dom.js";
import { markdown } from "./markdown.js";
import { planGraph } from "./plan.js";
import { apply, fresh, stepName, stepState, UNFINISHED } from "./run_state.js";
import { stepDetail, stepTitle } from "./step.js";
import { waterfall } from "./waterfall.js";

const TICK_MS = 1000;
const SILENT_S = 20;
const LAYERS = ["application", "agent", "model", "resource", "execution"];

/** Shows run `id` in `view`; `changed()` is called when the list of runs may look different. */
export function watch(view, id, go, changed) {
  const page = { view, id, go, changed, run: fresh(id), object: null, told: null, connected: true, chosen: chosenStep(), due: false, control: new AbortController() };
  build(page);
  listen(page);
  refresh(page);
  const timer = setInterval(() => page.run.ended === null && !document.hidden && draw(page), TICK_MS);
  return () => {
    clearInterval(timer);
    clearTimeout(page.refreshing);
    page.control.abort();
  };
}

function chosenStep() {
  const step = Number(new URLSearchParams(location.search).get("step"));
  return Number.isSafeInteger(step) && step > 0 ? step : null;
}

function build(page) {
  const part = (name, ...children) => (page[name] = make("div", "", ...children));
  page.title = make("h1", "", "Run");
  page.status = make("span", { class: "pill", role: "status", id: "run-status" }, "…");
  page.actions = make("div", "row");
  page.lost = make("p", { class: "lost", role: "status", hidden: true }, "The connection is lost; trying again.");
  page.detailTitle = make("h2", { tabindex: -1 });
  page.detailBody = make("div", "detail-body");
  const close = make("button", { class: "quiet small", type: "button", onclick: () => choose(page, null) }, "Close");
  page.detail = make("section", { class: "detail card", "aria-label": "Step", hidden: true }, make("header", "", page.detailTitle, close), page.detailBody);
  page.detail.addEventListener("keydown", (event) => event.key === "Escape" && choose(page, null));
  const section = (title, body, name) => make("section", { class: `card ${name}`, "aria-label": title }, make("h2", "", title), body);
  const head = make("header", "run-head", make("div", "", page.title, part("meta")), make("div", "row", page.status, page.actions));
  page.main = make(
    "div",
    "run-main",
    head,
    page.lost,
    part("asked"),
    part("answer"),
    section("Plan", part("plan"), "plan-card"),
    section("Time", make("div", "", part("time"), part("layers")), "time-card"),
    section("Steps", part("steps"), "steps-card"),
  );
  page.plan.className = "scroller";
  page.view.replaceChildren(make("div", "run", page.main, page.detail));
}

async function listen(page) {
  try {
    for await (const event of follow(page.id, page.control.signal, (up) => connection(page, up))) {
      apply(page.run, event);
      soon(page);
      if (["step_ended", "run_ended", "approval_asked", "approval_answered", "run_resumed"].includes(event.type)) later(page);
    }
    page.changed();
  } catch (error) {
    if (error.name === "AbortError") return;
    page.view.replaceChildren(make("div", "run", make("div", "run-main", make("h1", "", "No such run"), make("p", "trouble", visible(error.message)))));
  }
}

function connection(page, up) {
  page.lost.hidden = up;
  if (up && !page.connected) later(page);
  page.connected = up;
}

/** Draws once for all events of a moment. */
function soon(page) {
  if (page.due) return;
  page.due = true;
  requestAnimationFrame(() => {
    page.due = false;
    if (!page.control.signal.aborted) draw(page);
  });
}

function later(page) {
  clearTimeout(page.refreshing);
  page.refreshing = setTimeout(() => refresh(page), 150);
}

/** Asks for what the events do not tell: totals, pending questions and the explained times. */
async function refresh(page) {
  try {
    page.object = await call("GET", `/v1/runs/${page.id}`);
    page.told = await call("GET", `/v1/runs/${page.id}/explain`);
    page.changed();
  } catch (error) {
    if (error.status !== 0 && error.status !== 404) notice(error.message);
  }
  if (!page.control.signal.aborted) draw(page);
}

function status(page) {
  if (page.run.ended !== null) return page.run.status;
  // "stalled" is known to the server alone; what events say is newer than the last answer otherwise.
  return page.object?.status === "stalled" ? "stalled" : page.run.status;
}

const now = (page) => page.run.ended ?? Math.max(page.run.last ?? 0, Date.now() / 1000);

function draw(page) {
  const { run } = page;
  if (run.began === null) return;
  document.title = `${short(run.goal, 60)} · Pentad`;
  page.title.textContent = visible(run.goal);
  page.status.textContent = status(page).replaceAll("_", " ");
  page.status.className = `pill st-${status(page)}`;
  page.meta.replaceChildren(...facts(page));
  drawActions(page);
  drawAsked(page);
  drawAnswer(page);
  const bars = page.told?.waterfall ?? [];
  const press = (step) => choose(page, step);
  refill(page.plan, planGraph(run, page.plan.clientWidth > 480, page.chosen, press));
  page.plan.tabIndex = page.plan.scrollWidth > page.plan.clientWidth ? 0 : -1;
  refill(page.time, [waterfall(run, bars, now(page), page.chosen, press)]);
  refill(page.layers, layers(page.told));
  refill(page.steps, [stepList(page, press)]);
  if (page.chosen !== null) drawDetail(page);
}

/** Replaces what a box shows and leaves the focus where it was. */
function refill(box, children) {
  const active = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  box.replaceChildren(...children.flat().filter(Boolean));
  if (active) [...box.querySelectorAll("[data-key]")].find((each) => each.dataset.key === active)?.focus({ preventScroll: true });
}

function facts(page) {
  const { run, object } = page;
  const usage = object?.usage;
  const parts = [
    `agent ${visible(run.agent.name ?? "")}`,
    run.agent.model ? `model ${visible(run.agent.model)}` : null,
    `started ${moment(run.began)}`,
    seconds(now(page) - run.began),
    usage ? `${count(usage.total_tokens, "token")} in ${count(usage.model_calls, "model call")}` : null,
    usage?.cost ? `cost ${usage.cost.toPrecision(3)}` : null,
  ];
  const from = run.forked ? [" · forked from ", make("a", { href: `/console/runs/${run.forked.run_id}?step=${run.forked.step}` }, `step ${run.forked.step} of another run`)] : [];
  return [make("p", "soft", parts.filter(Boolean).join(" · "), ...from), make("p", "soft id", run.id)];
}

function drawActions(page) {
  const state = status(page);
  const silent = run => UNFINISHED.has(state) && state !== "waiting" && Date.now() / 1000 - (run.last ?? 0) > SILENT_S;
  const wanted = UNFINISHED.has(state) ? (silent(page.run) ? "cancel resume" : "cancel") : "again fork";
  if (page.offered === wanted) return;
  page.offered = wanted;
  const post = (verb) => (event) => pressed(event.target, async () => {
    page.object = await call("POST", `/v1/runs/${page.id}/${verb}`, {});
    later(page);
  });
  const made = {
    cancel: () => make("button", { class: "danger", type: "button", id: "cancel", onclick: post("cancel") }, "Cancel"),
    resume: () => make("button", { class: "quiet", type: "button", id: "resume", title: "For a run that nobody works on", onclick: post("resume") }, "Resume"),
    again: () => make("a", { class: "button quiet", id: "again", href: `/console/runs?${again(page.run)}` }, "Run again"),
    fork: () => make("button", { class: "quiet", type: "button", id: "fork", onclick: () => openFork(page) }, "Fork"),
  };
  page.actions.replaceChildren(...wanted.split(" ").map((name) => made[name]()));
}

const again = (run) => new URLSearchParams({ agent: run.agent.name ?? "", goal: run.goal });

function openFork(page) {
  const last = [...page.run.steps.keys()].at(-1) ?? 1;
  choose(page, page.chosen ?? last);
  const box = page.detailBody.querySelector("details.fork");
  if (!box) return;
  box.open = true;
  box.querySelector("textarea").focus();
}

function drawAsked(page) {
  const pending = status(page) === "waiting" ? (page.object?.pending ?? []) : [];
  const key = pending.map((each) => each.id).join(" ");
  // What the person is typing is not to be lost to a redraw.
  if (page.askedFor === key) return;
  page.askedFor = key;
  page.asked.replaceChildren(
    ...approvals(page.id, pending, (object) => {
      page.object = object;
      draw(page);
      page.status.focus?.();
    }),
  );
}

function drawAnswer(page) {
  const { run } = page;
  const key = `${run.ended} ${run.live?.text.length ?? 0} ${run.live?.purpose ?? ""}`;
  if (page.answered === key) return;
  page.answered = key;
  const card = (title, name, ...children) => make("section", { class: `card answer ${name}`, "aria-label": title }, make("h2", "", title), ...children);
  const made = [];
  if (run.live) made.push(card(run.live.purpose === "answer" ? "Answer" : "The model is writing", "live", make("p", "plain", visible(run.live.text.slice(-2000)))));
  if (run.answer) made.push(card("Answer", "", make("div", "body", markdown(run.answer))));
  if (run.error) made.push(card(run.status === "cancelled" ? "Cancelled" : "What went wrong", "failed", make("p", "plain", visible(run.error))));
  page.answer.replaceChildren(...made);
}

function layers(told) {
  if (!told) return [];
  const parts = [...LAYERS.map((name) => [name, told.layers.find((each) => each.layer === name)?.seconds ?? 0]), ["unattributed", told.residual_s]];
  const whole = parts.reduce((sum, [, took]) => sum + took, 0);
  if (!(whole > 0)) return [];
  const bar = make("div", { class: "timeline", role: "img", "aria-label": `Time by layer: ${parts.map(([name, took]) => `${name} ${seconds(took)}`).join(", ")}` });
  for (const [name, took] of parts) {
    const piece = make("span", `l-${name}`);
    piece.style.width = `${(100 * took) / whole}%`;
    bar.append(piece);
  }
  const legend = parts.map(([name, took]) => make("li", "", make("span", `swatch l-${name}`), `${name} ${seconds(took)}`));
  const cached = `${count(told.prompt_tokens, "prompt token")} (${told.cached_tokens} cached) · ${told.completion_tokens} generated · ${count(told.tool_calls, "tool call")}`;
  return [make("h3", "", "By layer"), bar, make("ul", "legend", legend), make("p", "soft", cached)];
}

function stepList(page, press) {
  const { run } = page;
  const items = [...run.steps.values()].map((step) => {
    const state = stepState(step, run);
    const took = seconds((step.ended ?? now(page)) - step.began);
    const tools = [...step.tools.values()];
    const said = tools.length ? tools.map((tool) => `${tool.arguments} → ${tool.returned === null ? "…" : tool.content}`).join("; ") : step.detail || step.asks.at(-1)?.error || step.asks.at(-1)?.text || "";
    return make(
      "li",
      "",
      make(
        "button",
        { class: "step-row", type: "button", "data-key": `step ${step.number}`, "aria-pressed": String(step.number === page.chosen), onclick: () => press(step.number) },
        make("span", "step-number", String(step.number)),
        make("span", "step-name", visible(stepName(step))),
        make("span", `pill s-${state}`, step.outcome?.replaceAll("_", " ") ?? state),
        make("span", "soft step-time", took),
        make("span", "step-said", short(said, 200)),
      ),
    );
  });
  return items.length ? make("ol", "step-list", items) : make("p", "soft", run.ended === null ? "The first step is about to begin." : "The run ended before its first step.");
}

function choose(page, step) {
  const back = page.chosen;
  page.chosen = step;
  page.detailFor = null;
  history.replaceState(null, "", `/console/runs/${page.id}${step === null ? "" : `?step=${step}`}`);
  page.detail.hidden = step === null;
  draw(page);
  if (step !== null) page.detailTitle.focus();
  else page.steps.querySelector(`[data-key="step ${back}"]`)?.focus();
}

function drawDetail(page) {
  const step = page.run.steps.get(page.chosen);
  const bars = page.told?.waterfall ?? [];
  const key = JSON.stringify([page.chosen, step?.outcome, step?.asks.map((ask) => [ask.answered, ask.error]), step && [...step.tools.values()], bars.length]);
  if (page.detailFor === key) return;
  page.detailFor = key;
  page.detail.hidden = false;
  page.detailTitle.textContent = stepTitle(page.run, page.chosen);
  const kept = new Set([...page.detailBody.querySelectorAll("details[open][data-keep]")].map((each) => each.dataset.keep));
  const made = stepDetail(page.run, page.chosen, bars, (run) => page.go(`/console/runs/${run.id}`));
  page.detailBody.replaceChildren(...made.flat(2).filter(Boolean));
  for (const each of page.detailBody.querySelectorAll("details[data-keep]")) each.open = kept.has(each.dataset.keep);
}
