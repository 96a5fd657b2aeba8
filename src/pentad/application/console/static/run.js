// The page of one run: followed as it happens, over cut connections and reloads.

import { call, follow } from "./api.js";
import { make, notice, short, visible } from "./dom.js";
import { planGraph } from "./plan.js";
import { apply, fresh } from "./run_state.js";
import { drawActions, drawAnswer, drawAsked, facts, layers, now, status, stepList } from "./run_view.js";
import { stepDetail, stepTitle } from "./step.js";
import { waterfall } from "./waterfall.js";

/** Events after which the run's object says something that they do not. */
const TELLING = new Set([
  "step_ended",
  "run_ended",
  "approval_asked",
  "approval_answered",
  "run_resumed",
  "sub_run_started",
  "sub_run_changed",
  "sub_run_ended",
]);
const TICK_MS = 1000;
const REFRESH_MS = 10_000;

/** Shows run `id` in `view`; `changed()` is called when the list of runs may look different. */
export function watch(view, id, go, changed) {
  const page = {
    view,
    id,
    go,
    changed,
    run: fresh(id),
    object: null,
    told: null,
    connected: true,
    chosen: chosenStep(),
    due: false,
    control: new AbortController(),
  };
  page.draw = () => draw(page);
  page.later = () => later(page);
  page.choose = (step) => choose(page, step);
  build(page);
  listen(page);
  refresh(page);
  const timer = setInterval(() => {
    if (page.run.ended !== null || document.hidden) return;
    draw(page);
    // A run that waits for disk space has no events that say so.
    if (performance.now() - page.asked_at > REFRESH_MS) refresh(page);
  }, TICK_MS);
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
  page.detail = make(
    "section",
    { class: "detail card", "aria-label": "Step", hidden: true },
    make("header", "", page.detailTitle, close),
    page.detailBody,
  );
  page.detail.addEventListener("keydown", (event) => event.key === "Escape" && choose(page, null));
  const section = (title, body, name) =>
    make("section", { class: `card ${name}`, "aria-label": title }, make("h2", "", title), body);
  const head = make(
    "header",
    "run-head",
    make("div", "", page.title, part("meta")),
    make("div", "row", page.status, page.actions),
  );
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
      if (TELLING.has(event.type)) later(page);
    }
    page.changed();
  } catch (error) {
    if (error.name === "AbortError") return;
    page.view.replaceChildren(
      make(
        "div",
        "run",
        make("div", "run-main", make("h1", "", "No such run"), make("p", "trouble", visible(error.message))),
      ),
    );
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
  page.asked_at = performance.now();
  try {
    page.object = await call("GET", `/v1/runs/${page.id}`);
    page.told = await call("GET", `/v1/runs/${page.id}/explain`);
    page.changed();
  } catch (error) {
    if (error.status !== 0 && error.status !== 404) notice(error.message);
  }
  if (!page.control.signal.aborted) draw(page);
}

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
  refill(page.plan, planGraph(run, page.plan.clientWidth, page.chosen, press));
  showNode(page.plan);
  page.plan.tabIndex = page.plan.scrollWidth > page.plan.clientWidth ? 0 : -1;
  refill(page.time, [waterfall(run, bars, now(page), page.chosen, press)]);
  refill(page.layers, layers(page.told));
  refill(page.steps, [stepList(page, press)]);
  if (page.chosen !== null) drawDetail(page);
}

/** Brings what is chosen or under way into the part of a long plan that is seen. */
function showNode(box) {
  const node = box.querySelector(".node.here, .node.active, .node.waiting");
  if (!node || box.scrollWidth <= box.clientWidth) return;
  const place = node.getBoundingClientRect();
  const seen = box.getBoundingClientRect();
  box.scrollLeft += place.left + place.width / 2 - seen.left - seen.width / 2;
}

/** Replaces what a box shows and leaves the focus where it was. */
function refill(box, children) {
  const active = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  box.replaceChildren(...children.flat().filter(Boolean));
  if (active)
    [...box.querySelectorAll("[data-key]")].find((each) => each.dataset.key === active)?.focus({ preventScroll: true });
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
  const key = JSON.stringify([
    page.chosen,
    step?.outcome,
    step?.asks.map((ask) => [ask.answered, ask.error]),
    step && [...step.tools.values()],
    bars.length,
  ]);
  const forking = page.detailBody.querySelector("details.fork[open]") && page.detailOf === page.chosen;
  // What the person is typing is not to be lost to a redraw.
  if (page.detailFor === key || forking) return;
  page.detailOf = page.chosen;
  page.detailFor = key;
  page.detail.hidden = false;
  page.detailTitle.textContent = stepTitle(page.run, page.chosen);
  const kept = new Set(
    [...page.detailBody.querySelectorAll("details[open][data-keep]")].map((each) => each.dataset.keep),
  );
  const made = stepDetail(page.run, page.chosen, bars, (run) => page.go(`/console/runs/${run.id}`));
  page.detailBody.replaceChildren(...made.flat(2).filter(Boolean));
  for (const each of page.detailBody.querySelectorAll("details[data-keep]")) each.open = kept.has(each.dataset.keep);
}
