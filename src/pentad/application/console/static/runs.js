// The runs page: the list of runs, and either the form that starts one or the run that is shown.

import { call } from "./api.js";
import { make, moment, notice, pressed, short, visible } from "./dom.js";
import { drawers } from "./drawer.js";
import { watch } from "./run.js";
import { modelSelect } from "./sampling.js";
import { discover, server } from "./session.js";

const LIST_MS = 4000;

export function open(view, id, go) {
  document.title = "Runs · Pentad";
  const list = make("ul", { class: "side-list", id: "run-list" }, make("li", "soft", "Loading."));
  const side = make(
    "aside",
    { class: "side runs-side", "aria-label": "Runs" },
    make("a", { class: "button", href: "/console/runs", id: "new-run" }, "New run"),
    list,
  );
  const box = make("div", "runs");
  const bar = drawers(box, [["runs-side", "Runs"]]).bar;
  const place = make("div", "run-place");
  box.append(side, make("div", "run-column", bar, place));
  view.replaceChildren(box);
  const draw = () => drawList(list, id);
  const timer = setInterval(draw, LIST_MS);
  draw();
  const leave = id === null ? startForm(place, go) : watch(place, id, go, draw);
  return () => {
    clearInterval(timer);
    leave();
  };
}

async function drawList(list, shown) {
  if (document.hidden || !server.report?.agents) return;
  let runs;
  try {
    runs = (await call("GET", "/v1/runs?limit=100")).data;
  } catch (error) {
    if (error.status > 0 && error.status !== 401) notice(error.message);
    return;
  }
  const key = JSON.stringify(runs);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const items = runs.map((run) =>
    make(
      "li",
      run.parent ? "sub-run" : "",
      make(
        "a",
        { href: `/console/runs/${run.id}`, "aria-current": run.id === shown && "page" },
        make("span", "goal", short(run.goal, 80)),
        make(
          "span",
          "soft",
          make("span", `dot st-${run.status}`),
          `${run.status.replaceAll("_", " ")} · ${visible(run.agent)} · ${moment(run.created_at)}`,
        ),
      ),
    ),
  );
  list.replaceChildren(...(items.length ? items : [make("li", "soft", "No runs yet.")]));
  if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function startForm(place, go) {
  const given = new URLSearchParams(location.search);
  const goal = make("textarea", {
    id: "goal",
    rows: 4,
    required: true,
    maxlength: 262144,
    placeholder: "What is 347 times 28, and which weekday is 2026-12-25?",
  });
  goal.value = given.get("goal") ?? "";
  const model = modelSelect("run-model", "", "the agent's own");
  const button = make("button", { type: "submit", id: "start-run" }, "Start run");
  const cards = make("div", { class: "agents", role: "radiogroup", "aria-label": "Agent" });
  const form = make(
    "form",
    "start card",
    make("h1", "", "Start a run"),
    make("h2", "", "Agent"),
    cards,
    make("label", "", "Model ", model),
    make("label", "", "Goal ", goal),
    make("div", "row", button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    pressed(button, async () => {
      const agent = form.querySelector("input[name=agent]:checked")?.value;
      if (!agent) throw new Error("choose an agent");
      const run = await call("POST", "/v1/runs", {
        agent,
        goal: goal.value.trim(),
        ...(model.value ? { model: model.value } : {}),
      });
      go(`/console/runs/${run.id}`);
    });
  });
  place.replaceChildren(make("div", "run-main narrow", form));
  const fill = () =>
    cards.replaceChildren(
      ...server.agents.map((agent, i) =>
        agentCard(agent, given.get("agent") ? agent.name === given.get("agent") : i === 0),
      ),
    );
  fill();
  // Files of agents may have changed since the page was opened.
  discover().then(
    () => cards.isConnected && !form.contains(document.activeElement) && fill(),
    () => {},
  );
  return () => {};
}

function agentCard(agent, chosen) {
  const facts = [
    agent.model ? `model ${agent.model}` : "the default model",
    agent.tools.length ? `tools ${agent.tools.join(", ")}` : "no tools",
    agent.source,
  ].filter(Boolean);
  const input = make("input", { type: "radio", name: "agent", value: agent.name, id: `agent-${agent.name}` });
  input.checked = chosen;
  return make(
    "label",
    "agent",
    input,
    make(
      "span",
      "agent-text",
      make("b", "", visible(agent.name)),
      agent.description ? make("span", "", visible(agent.description)) : null,
      make("span", "soft", short(facts.join(" · "), 200)),
      agent.error ? make("span", "trouble", visible(agent.error)) : null,
    ),
  );
}
