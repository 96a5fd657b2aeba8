// The parts of a run's page: facts, actions, questions, answer, layers and steps.

import { call } from "./api.js";
import { approvals } from "./approval.js";
import { count, make, moment, pressed, seconds, short, visible } from "./dom.js";
import { markdown } from "./markdown.js";
import { stepName, stepState, UNFINISHED } from "./run_state.js";

const SILENT_S = 60;
const LAYERS = ["application", "agent", "model", "resource", "execution"];

export function status(page) {
  if (page.run.ended !== null) return page.run.status;
  // "stalled" is known to the server alone; what events say is newer than the last answer otherwise.
  return page.object?.status === "stalled" ? "stalled" : page.run.status;
}

export const now = (page) => page.run.ended ?? Math.max(page.run.last ?? 0, Date.now() / 1000);

export function facts(page) {
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
  const from = run.forked
    ? [
        " · forked from ",
        make(
          "a",
          { href: `/console/runs/${run.forked.run_id}?step=${run.forked.step}` },
          `step ${run.forked.step} of another run`,
        ),
      ]
    : [];
  const own = run.parent
    ? [
        " · sub-run of ",
        make("a", { href: `/console/runs/${run.parent.run_id}?step=${run.parent.step}` }, "another run"),
      ]
    : [];
  return [
    make("p", "soft", parts.filter(Boolean).join(" · "), ...from, ...own),
    make("p", "soft id", run.id),
    ...members(object?.children ?? []),
  ];
}

/** The sub-runs of a run, each with what has come of it. */
function members(children) {
  if (!children.length) return [];
  const items = children.map((child) =>
    make(
      "li",
      "",
      make("a", { href: `/console/runs/${child.run_id}` }, `${visible(child.agent)}: ${short(child.goal, 80)}`),
      make("span", "soft", make("span", `dot st-${child.status}`), child.status.replaceAll("_", " ")),
    ),
  );
  return [make("ul", { class: "sub-runs", "aria-label": "Sub-runs" }, ...items)];
}

export function drawActions(page) {
  const state = status(page);
  const silent = (run) =>
    UNFINISHED.has(state) && state !== "waiting" && Date.now() / 1000 - (run.last ?? 0) > SILENT_S;
  const wanted = UNFINISHED.has(state) ? (silent(page.run) ? "cancel resume" : "cancel") : "again fork";
  if (page.offered === wanted) return;
  page.offered = wanted;
  const post = (verb) => (event) =>
    pressed(event.target, async () => {
      page.object = await call("POST", `/v1/runs/${page.id}/${verb}`, {});
      page.later();
    });
  const made = {
    cancel: () => make("button", { class: "danger", type: "button", id: "cancel", onclick: post("cancel") }, "Cancel"),
    resume: () =>
      make(
        "button",
        {
          class: "quiet",
          type: "button",
          id: "resume",
          title: "For a run that nobody works on",
          onclick: post("resume"),
        },
        "Resume",
      ),
    again: () =>
      make("a", { class: "button quiet", id: "again", href: `/console/runs?${again(page.run)}` }, "Run again"),
    fork: () => make("button", { class: "quiet", type: "button", id: "fork", onclick: () => openFork(page) }, "Fork"),
  };
  page.actions.replaceChildren(...wanted.split(" ").map((name) => made[name]()));
}

const again = (run) => new URLSearchParams({ agent: run.agent.name ?? "", goal: run.goal });

function openFork(page) {
  const last = [...page.run.steps.keys()].at(-1) ?? 1;
  page.choose(page.chosen ?? last);
  const box = page.detailBody.querySelector("details.fork");
  if (!box) return;
  box.open = true;
  box.querySelector("textarea").focus();
}

export function drawAsked(page) {
  // A sub-run may ask while others are at work, so the run itself need not wait.
  const pending = UNFINISHED.has(status(page)) ? (page.object?.pending ?? []) : [];
  const key = pending.map((each) => each.id).join(" ");
  // What the person is typing is not to be lost to a redraw.
  if (page.askedFor === key) return;
  page.askedFor = key;
  page.asked.replaceChildren(
    ...approvals(page.id, pending, (object) => {
      page.object = object;
      page.draw();
      page.status.focus?.();
    }),
  );
}

export function drawAnswer(page) {
  const { run } = page;
  const key = `${run.ended} ${run.live?.text.length ?? 0} ${run.live?.purpose ?? ""}`;
  if (page.answered === key) return;
  page.answered = key;
  const card = (title, name, ...children) =>
    make("section", { class: `card answer ${name}`, "aria-label": title }, make("h2", "", title), ...children);
  const made = [];
  if (run.live)
    made.push(
      card(
        run.live.purpose === "answer" ? "Answer" : "The model is writing",
        "live",
        make("p", "plain", visible(run.live.text.slice(-2000))),
      ),
    );
  if (run.answer) made.push(card("Answer", "", make("div", "body", markdown(run.answer))));
  if (run.error)
    made.push(
      card(
        run.status === "cancelled" ? "Cancelled" : "What went wrong",
        "failed",
        make("p", "plain", visible(run.error)),
      ),
    );
  page.answer.replaceChildren(...made);
}

export function layers(told) {
  if (!told) return [];
  const parts = [
    ...LAYERS.map((name) => [name, told.layers.find((each) => each.layer === name)?.seconds ?? 0]),
    ["unattributed", told.residual_s],
  ];
  const whole = parts.reduce((sum, [, took]) => sum + took, 0);
  if (!(whole > 0)) return [];
  const bar = make("div", {
    class: "timeline",
    role: "img",
    "aria-label": `Time by layer: ${parts.map(([name, took]) => `${name} ${seconds(took)}`).join(", ")}`,
  });
  for (const [name, took] of parts) {
    const piece = make("span", `l-${name}`);
    piece.style.width = `${(100 * took) / whole}%`;
    bar.append(piece);
  }
  const legend = parts.map(([name, took]) =>
    make("li", "", make("span", `swatch l-${name}`), `${name} ${seconds(took)}`),
  );
  const cached = `${count(told.prompt_tokens, "prompt token")} (${told.cached_tokens} cached) · ${told.completion_tokens} generated · ${count(told.tool_calls, "tool call")}`;
  return [make("h3", "", "By layer"), bar, make("ul", "legend", legend), make("p", "soft", cached)];
}

export function stepList(page, press) {
  const { run } = page;
  const items = [...run.steps.values()].map((step) => {
    const state = stepState(step, run);
    const took = seconds((step.ended ?? now(page)) - step.began);
    const tools = [...step.tools.values()];
    const said = tools.length
      ? tools.map((tool) => `${tool.arguments} → ${tool.returned === null ? "…" : tool.content}`).join("; ")
      : step.detail || step.asks.at(-1)?.error || step.asks.at(-1)?.text || "";
    return make(
      "li",
      "",
      make(
        "button",
        {
          class: "step-row",
          type: "button",
          "data-key": `step ${step.number}`,
          "aria-pressed": String(step.number === page.chosen),
          onclick: () => press(step.number),
        },
        make("span", "step-number", String(step.number)),
        make("span", "step-name", visible(stepName(step))),
        make("span", `pill s-${state}`, step.outcome?.replaceAll("_", " ") ?? state),
        make("span", "soft step-time", took),
        make("span", "step-said", short(said, 200)),
      ),
    );
  });
  return items.length
    ? make("ol", "step-list", items)
    : make(
        "p",
        "soft",
        run.ended === null ? "The first step is about to begin." : "The run ended before its first step.",
      );
}
