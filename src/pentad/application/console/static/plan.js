// The plan as a graph that follows the run: what was done, what is under way, what is to come.

import { make, short, svg } from "./dom.js";
import { stepName, stepState, toolState } from "./run_state.js";
import { Graph, layout } from "./vendor/dagre.js";

const WIDEST = 168;
const NARROWEST = 112;
const GAP = 28;
const HEIGHT = 50;
const MOST = 60;
const SIGNS = { done: "✓", failed: "✕", active: "●", waiting: "?", pending: "○" };

/** Ranks of nodes {id, title, text, state, step}: those of one rank were asked for together. */
export function ranks(run) {
  const made = [[{ id: "goal", title: "Goal", text: run.goal, state: "done", step: null }]];
  let answered = 0;
  for (const step of run.steps.values()) {
    if (step.recalled.length)
      made.push([
        {
          id: `r${step.number}`,
          title: "Memory",
          text: `${step.recalled.length} recalled`,
          state: "done",
          step: step.number,
        },
      ]);
    const tools = [...step.tools.values()];
    const task = step.number > run.planned ? run.plan[answered]?.[1] : null;
    if (tools.length) {
      made.push(
        tools.map((tool) => ({
          id: `s${step.number}.${tool.index}`,
          title: tool.tool,
          text: (tools.length === 1 && task) || tool.arguments,
          state: toolState(tool),
          step: step.number,
        })),
      );
      if (step.number > run.planned && step.outcome === "called_tools") answered += 1;
    } else {
      made.push([
        {
          id: `s${step.number}`,
          title: stepName(step),
          text: said(run, step),
          state: stepState(step, run),
          step: step.number,
        },
      ]);
    }
  }
  if (run.ended === null) made.push(...toCome(run, answered));
  return made;
}

function said(run, step) {
  if (step.number === run.planned) return `${run.plan.length} task${run.plan.length === 1 ? "" : "s"}`;
  return step.detail || step.asks.at(-1)?.text || "";
}

function toCome(run, answered) {
  const current = [...run.steps.values()].at(-1);
  // The sub-goal under way is on the picture already as its step.
  const begun = current && current.outcome === null && current.number > run.planned ? 1 : 0;
  const left = run.plan
    .slice(answered + begun)
    .map(([tool, task], i) => [{ id: `g${i}`, title: tool || "Task", text: task, state: "pending", step: null }]);
  const answering = current?.asks.some((ask) => ask.purpose === "answer") && current.outcome === null;
  return answering ? left : [...left, [{ id: "answer", title: "Answer", text: "", state: "pending", step: null }]];
}

/** The graph as a picture for so many pixels; `choose(step)` is called for a pressed node. */
export function planGraph(run, room, chosen, choose) {
  const all = ranks(run);
  const shown = all.length > MOST ? [all[0], ...all.slice(1 - MOST)] : all;
  const wide = room > 480;
  const fitting = wide ? Math.floor((room - 8) / shown.length - GAP) : WIDEST;
  const breadth = Math.min(WIDEST, Math.max(NARROWEST, fitting));
  const graph = new Graph()
    .setGraph({ rankdir: wide ? "LR" : "TB", nodesep: 14, ranksep: wide ? GAP : 26, marginx: 3, marginy: 3 })
    .setDefaultEdgeLabel(() => ({}));
  for (const node of shown.flat()) graph.setNode(node.id, { ...node, width: breadth, height: HEIGHT });
  shown.slice(1).forEach((rank, i) => {
    for (const from of shown[i]) for (const to of rank) graph.setEdge(from.id, to.id);
  });
  layout(graph);
  const { width, height } = graph.graph();
  const edges = graph
    .edges()
    .map((edge) => svg("path", { class: `edge ${graph.node(edge.w).state}`, d: curve(graph.edge(edge).points) }));
  const nodes = graph.nodes().map((id) => nodePicture(graph.node(id), chosen, choose));
  const picture = svg(
    "svg",
    { class: "plan", role: "group", "aria-label": "Plan", width, height, viewBox: `0 0 ${width} ${height}` },
    edges,
    nodes,
  );
  const left = all.length - shown.length;
  return [
    left > 0
      ? make("p", "soft", `The ${left} steps after the goal are left out of the picture; the list below has them.`)
      : null,
    picture,
  ];
}

function curve(points) {
  const [first, ...rest] = points;
  const parts = [`M${first.x},${first.y}`];
  for (let i = 0; i + 1 < rest.length; i += 1) {
    const middle = { x: (rest[i].x + rest[i + 1].x) / 2, y: (rest[i].y + rest[i + 1].y) / 2 };
    parts.push(`Q${rest[i].x},${rest[i].y} ${middle.x},${middle.y}`);
  }
  const last = rest.at(-1);
  return `${parts.join(" ")} L${last.x},${last.y}`;
}

function nodePicture(node, chosen, choose) {
  const pressable = node.step !== null;
  const act = () => pressable && choose(node.step);
  const here = pressable && node.step === chosen;
  const title = short(node.title, Math.floor((node.width - 36) / 7.6));
  const text = short(node.text, Math.floor((node.width - 20) / 6.7));
  const spoken = `${title} ${text}, ${node.state}${node.step === null ? "" : `, step ${node.step}`}`;
  const box = { width: node.width, height: HEIGHT, rx: 10 };
  return svg(
    "g",
    {
      class: `node ${node.state}${here ? " here" : ""}`,
      transform: `translate(${node.x - node.width / 2},${node.y - HEIGHT / 2})`,
    },
    svg("rect", { class: "box", ...box }),
    svg(
      "g",
      { "aria-hidden": "true" },
      svg("text", { class: "sign", x: 12, y: 20 }, SIGNS[node.state]),
      svg("text", { class: "title", x: 28, y: 20 }, title),
      svg("text", { class: "text", x: 12, y: 38 }, text),
    ),
    // Over the words, so that what is pressed has one name.
    svg("rect", {
      class: pressable ? "hit pressable" : "hit",
      ...box,
      role: pressable ? "button" : "img",
      tabindex: pressable ? 0 : null,
      "data-key": `node ${node.id}`,
      "aria-pressed": pressable ? String(here) : null,
      "aria-label": spoken,
      onclick: act,
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        act();
      },
    }),
  );
}
