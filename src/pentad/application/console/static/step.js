// One step of a run in whole: what the model was asked and said, each tool call, times and decisions.

import { call } from "./api.js";
import { block, count, make, pressed, pretty, seconds, visible } from "./dom.js";
import { markdown } from "./markdown.js";
import { stepName, stepState, toolState } from "./run_state.js";
import { modelSelect } from "./sampling.js";
import { stepTimes } from "./waterfall.js";

/** The detail of a step. `told` is the server's waterfall; `forked(run)` is called with a new run. */
export function stepDetail(run, number, told, forked) {
  const step = run.steps.get(number);
  if (!step) return [make("p", "soft", `Step ${number} has not happened.`)];
  const times = stepTimes(told, number);
  return [
    make(
      "p",
      "",
      make("span", `pill s-${stepState(step, run)}`, step.outcome?.replaceAll("_", " ") ?? stepState(step, run)),
      ` ${visible(step.detail)}`,
    ),
    step.notes.map((note) => make("p", "trouble", visible(note))),
    step.recalled.length ? recalled(step) : null,
    step.asks.map((ask) => askDetail(run, step, ask)),
    [...step.tools.values()].map(toolDetail),
    times && make("section", "", make("h3", "", "Times"), times),
    decisions(step),
    forkForm(run, step, forked),
  ];
}

export const stepTitle = (run, number) => {
  const step = run.steps.get(number);
  return `Step ${number}${step ? `: ${visible(stepName(step))}` : ""}`;
};

function recalled(step) {
  const items = step.recalled.map(([, text, score]) =>
    make("li", "", visible(text), make("span", "soft", ` ${Number(score).toFixed(2)}`)),
  );
  return make("section", "", make("h3", "", "Recalled from memory"), make("ul", "", items));
}

function askDetail(run, step, ask) {
  const usage = ask.usage;
  const facts = [
    usage.prompt_tokens === undefined
      ? null
      : `${usage.prompt_tokens} prompt tokens (${usage.cached_tokens ?? 0} cached)`,
    usage.completion_tokens === undefined ? null : `${usage.completion_tokens} generated`,
    ask.answered === null ? "under way" : seconds(ask.answered - ask.asked),
    ask.reason && ask.reason !== "stop" ? `ended by ${ask.reason}` : null,
  ].filter(Boolean);
  return make(
    "section",
    "",
    make("h3", "", `Model: ${visible(ask.purpose)}${ask.attempt ? `, attempt ${ask.attempt}` : ""}`),
    make("p", "soft", facts.join(" · ")),
    ask.error ? make("p", "trouble", `${visible(ask.error)}${ask.retry ? " (tried again)" : ""}`) : null,
    promptBox(run, step, ask),
    ask.reasoning
      ? make("details", "", make("summary", "", "Reasoning"), make("p", "plain", visible(ask.reasoning)))
      : null,
    ask.text ? said(ask) : null,
    ask.calls.map((each) =>
      make(
        "div",
        "",
        make("p", "label", `calls ${visible(each.name)}`),
        block(pretty(each.arguments), `Call of ${visible(each.name)}`),
      ),
    ),
  );
}

function said(ask) {
  const text =
    ask.purpose === "answer" ? make("div", "body", markdown(ask.text)) : block(pretty(ask.text), "What the model said");
  return make("div", "", make("p", "label", "said"), text);
}

/** The exact prompt, fetched when it is first opened. */
function promptBox(run, step, ask) {
  const place = make("div", "", make("p", "soft", "Loading."));
  const box = make(
    "details",
    { class: "prompt", "data-keep": `prompt ${step.number}.${ask.attempt}.${ask.request ?? ""}` },
    make("summary", "", "Exact prompt"),
    place,
  );
  let loaded = false;
  box.addEventListener("toggle", async () => {
    if (!box.open || loaded) return;
    loaded = true;
    try {
      const { data } = await call("GET", `/v1/runs/${run.id}/prompts`);
      const found =
        data.find((each) => each.request_id === ask.request) ??
        data.find((each) => each.step === step.number && each.attempt === ask.attempt);
      place.replaceChildren(...promptText(found));
    } catch (error) {
      loaded = false;
      place.replaceChildren(make("p", "trouble", error.message));
    }
  });
  return box;
}

function promptText(found) {
  if (!found) return [make("p", "soft", "No prompt was kept for this call.")];
  if (!found.retained)
    return [make("p", "soft", `Not retained: its data label or age says so. SHA-256 ${found.sha256}`)];
  return [block(found.prompt, "Exact prompt")];
}

function toolDetail(tool) {
  const took = tool.intended !== null && tool.returned !== null ? seconds(tool.returned - tool.intended) : null;
  const facts = [
    took,
    tool.status && tool.status !== "ok" ? tool.status : null,
    tool.cut ? `${count(tool.cut, "byte")} cut` : null,
  ].filter(Boolean);
  const waits = tool.waits.map((wait) => {
    const word =
      wait.answered === null
        ? "waits for a person"
        : `${wait.approved ? "approved" : "denied"}${wait.by === "timeout" ? " by timeout" : ""} after ${seconds(wait.answered - wait.asked)}`;
    return make("p", "", visible(`${word}${wait.note ? `: ${wait.note}` : ""}`));
  });
  return make(
    "section",
    "",
    make("h3", "", `Tool: ${visible(tool.tool)}`),
    make("p", "soft", make("span", `pill s-${toolState(tool)}`, toolState(tool)), ` ${facts.join(" · ")}`),
    waits,
    make("p", "label", "arguments"),
    block(pretty(tool.arguments), `Arguments of ${visible(tool.tool)}`),
    tool.returned === null
      ? null
      : [make("p", "label", "result"), block(pretty(tool.content), `Result of ${visible(tool.tool)}`)],
  );
}

function decisions(step) {
  const all = [...step.decisions, ...step.asks.flatMap((ask) => ask.usage.decisions ?? [])];
  if (!all.length) return null;
  const items = all.map((each) =>
    make(
      "li",
      "",
      make("b", "", visible(each.layer)),
      ` ${visible(each.subject)}: ${visible(each.chosen)}`,
      make(
        "span",
        "soft",
        ` by ${visible(each.policy)}${each.constraint ? `, bound by ${visible(each.constraint)}` : ""}`,
      ),
    ),
  );
  return make(
    "details",
    { "data-keep": `decisions ${step.number}` },
    make("summary", "", count(all.length, "decision")),
    make("ul", "decisions", items),
  );
}

/** A new run that has done what this one had done before the step. */
function forkForm(run, step, forked) {
  const goal = make("textarea", { rows: 3, id: "fork-goal" });
  goal.value = run.goal;
  const model = modelSelect("fork-model", "", "as it was");
  const button = make("button", { type: "submit" }, `Fork from step ${step.number}`);
  const form = make(
    "form",
    "start",
    make("p", "soft", "The new run has done all before this step and goes on from here; nothing is called twice."),
    make("label", "", "Goal ", goal),
    make("label", "", "Model ", model),
    button,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    pressed(button, async () => {
      const changed = goal.value.trim() && goal.value.trim() !== run.goal.trim() ? { goal: goal.value.trim() } : {};
      const other = model.value ? { model: model.value } : {};
      forked(await call("POST", `/v1/runs/${run.id}/fork`, { step: step.number, ...changed, ...other }));
    });
  });
  return make(
    "details",
    { class: "fork", "data-keep": `fork ${step.number}` },
    make("summary", "", "Fork from this step"),
    form,
  );
}
