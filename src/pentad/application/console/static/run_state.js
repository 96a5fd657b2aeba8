// What a run has come to, folded from its events; the page draws nothing but this.

export const UNFINISHED = new Set(["running", "waiting", "stalled"]);

export function fresh(id) {
  return {
    id,
    goal: "",
    agent: {},
    status: "running",
    began: null,
    last: null,
    ended: null,
    answer: "",
    error: null,
    forked: null,
    parent: null,
    /** The newest plan's sub-goals as [tool, task], and the step that made it. */
    plan: [],
    planned: 0,
    steps: new Map(),
    live: null,
  };
}

function stepOf(run, event) {
  const number = event.step ?? 1;
  if (!run.steps.has(number)) {
    run.steps.set(number, {
      number,
      began: event.at_s,
      ended: null,
      asks: [],
      tools: new Map(),
      recalled: [],
      outcome: null,
      detail: "",
      notes: [],
      decisions: [],
    });
  }
  return run.steps.get(number);
}

function askOf(step, event) {
  let ask = step.asks.findLast((each) => each.attempt === event.attempt);
  if (!ask) {
    ask = {
      attempt: event.attempt ?? 0,
      purpose: event.purpose ?? "act",
      asked: event.at_s,
      answered: null,
      text: "",
      reasoning: "",
      calls: [],
      usage: {},
      candidates: [],
      error: null,
    };
    step.asks.push(ask);
  }
  return ask;
}

function toolOf(step, event) {
  const index = event.index ?? 0;
  if (!step.tools.has(index)) {
    step.tools.set(index, {
      index,
      tool: event.tool,
      arguments: "",
      content: "",
      status: null,
      intended: null,
      returned: null,
      waits: [],
    });
  }
  return step.tools.get(index);
}

const ON = {
  run_started(run, event) {
    Object.assign(run, {
      goal: event.goal,
      agent: event.agent ?? {},
      began: event.at_s,
      forked: event.forked_from ?? null,
      parent: event.parent ?? null,
    });
  },
  run_resumed(run, event) {
    if (run.steps.size)
      [...run.steps.values()].at(-1).notes.push(`taken up again; ${event.in_doubt ?? 0} tool calls in doubt`);
  },
  recalled(run, event) {
    stepOf(run, event).recalled = event.items ?? [];
  },
  compacted(run, event) {
    stepOf(run, event).notes.push(
      `left out of the prompt: ${event.reason}, ${event.before_tokens} to ${event.after_tokens} tokens`,
    );
  },
  model_asked(run, event) {
    Object.assign(askOf(stepOf(run, event), event), {
      asked: event.at_s,
      purpose: event.purpose,
      request: event.request_id,
      tokens: event.prompt_tokens,
    });
  },
  model_answered(run, event) {
    Object.assign(askOf(stepOf(run, event), event), {
      answered: event.at_s,
      purpose: event.purpose,
      text: event.text ?? "",
      reasoning: event.reasoning ?? "",
      calls: event.tool_calls ?? [],
      usage: event.usage ?? {},
      reason: event.reason,
      candidates: event.candidates ?? [],
    });
    run.live = null;
  },
  sample_selected(run, event) {
    const step = stepOf(run, event);
    const ask = askOf(step, event);
    const taken = ask.candidates[event.index];
    if (taken) Object.assign(ask, { text: taken.text, reasoning: taken.reasoning, calls: taken.tool_calls });
    step.decisions.push(...(event.decisions ?? []));
  },
  model_failed(run, event) {
    Object.assign(askOf(stepOf(run, event), event), { answered: event.at_s, error: event.error, retry: event.retry });
    run.live = null;
  },
  planned(run, event) {
    const step = stepOf(run, event);
    Object.assign(run, { plan: event.goals ?? [], planned: step.number });
    step.decisions.push(...(event.decisions ?? []));
  },
  planner_decided(run, event) {
    stepOf(run, event).notes.push(`decided by the planner: ${event.label || event.purpose}`);
  },
  approval_asked(run, event) {
    const tool = toolOf(stepOf(run, event), event);
    Object.assign(tool, { tool: event.tool, arguments: tool.arguments || event.arguments });
    tool.waits.push({ id: event.approval_id, asked: event.at_s, answered: null, approved: null, note: "", by: "" });
    run.status = "waiting";
  },
  approval_answered(run, event) {
    const wait = toolOf(stepOf(run, event), event).waits.find((each) => each.id === event.approval_id);
    if (wait)
      Object.assign(wait, {
        answered: event.at_s,
        approved: event.approved,
        note: event.note ?? "",
        by: event.by ?? "",
      });
    run.status = event.waiting ? "waiting" : "running";
  },
  tool_intended(run, event) {
    Object.assign(toolOf(stepOf(run, event), event), {
      tool: event.tool,
      arguments: event.arguments,
      intended: event.at_s,
      effects: event.effects,
    });
  },
  tool_returned(run, event) {
    Object.assign(toolOf(stepOf(run, event), event), {
      tool: event.tool,
      status: event.status ?? "ok",
      content: event.content ?? "",
      cut: event.cut_bytes ?? 0,
      returned: event.at_s,
    });
  },
  sub_run_started(run, event) {
    stepOf(run, event).decisions.push(...(event.decisions ?? []));
  },
  sub_run_changed(run, event) {
    run.status = event.waits ? "waiting" : "running";
  },
  sub_run_ended(run, event) {
    run.status = event.waits ? "waiting" : "running";
  },
  coordinated(run, event) {
    stepOf(run, event).decisions.push(...(event.decisions ?? []));
  },
  step_ended(run, event) {
    const step = stepOf(run, event);
    Object.assign(step, { outcome: event.outcome, detail: event.detail ?? "", ended: event.at_s });
    step.decisions.push(...(event.decisions ?? []));
  },
  run_ended(run, event) {
    Object.assign(run, {
      status: event.status,
      answer: event.answer ?? "",
      error: event.error ?? null,
      ended: event.at_s,
      live: null,
    });
  },
  text_streamed(run, event) {
    const same = run.live?.step === event.step && run.live.attempt === event.attempt;
    if (!same) run.live = { step: event.step, attempt: event.attempt, purpose: event.purpose, text: "" };
    run.live.text += event.text;
  },
};

/** Takes one event in. Events that this page does not know change nothing. */
export function apply(run, event) {
  run.last = event.at_s ?? run.last;
  ON[event.type]?.(run, event);
}

/** pending, active, waiting, done or failed. */
export function toolState(tool) {
  if (tool.returned !== null) return tool.status === "ok" ? "done" : "failed";
  return tool.waits.some((wait) => wait.answered === null) ? "waiting" : "active";
}

export function stepState(step, run) {
  const failed = step.outcome === "failed" || step.outcome === "refused";
  if (step.outcome !== null) return failed ? "failed" : "done";
  if (run.ended !== null) return run.status === "answered" ? "done" : "failed";
  return [...step.tools.values()].some((tool) => toolState(tool) === "waiting") ? "waiting" : "active";
}

const PURPOSE = { plan: "Plan", act: "Act", answer: "Answer", think: "Think", summarise: "Summarise", tool: "Tool's question" };

/** What a step is called: its tools, or what the model was asked for. */
export function stepName(step) {
  if (step.outcome === "answered") return "Answer";
  if (step.tools.size) return [...step.tools.values()].map((tool) => tool.tool).join(", ");
  return PURPOSE[step.asks.find((ask) => ask.purpose !== "tool")?.purpose] ?? "Step";
}
