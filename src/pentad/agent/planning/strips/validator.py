"""Whether a plan does what it should: each step carried out on the facts, without any search."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.agent.planning.strips.task import Step, Task, written


def why_invalid(task: Task, plan: Sequence[Step]) -> str:
    """What is wrong with a plan: its first step that cannot be done, or what it leaves; empty if nothing."""
    facts = task.facts
    for number, step in enumerate(plan, 1):
        action = task.actions.get(step)
        if action is None:
            return f"step {number} {written(step)}: there is no such action"
        missing = sorted(written(atom) for atom in action.needs - facts)
        if missing:
            return f"step {number} {written(step)} needs {', '.join(missing)}"
        forbidden = sorted(written(atom) for atom in action.forbids & facts)
        if forbidden:
            return f"step {number} {written(step)} must not have {', '.join(forbidden)}"
        facts = action.after(facts)
    lacking = sorted(written(atom) for atom in task.goal - facts)
    too_much = sorted(f"not {written(atom)}" for atom in task.goal_not & facts)
    return f"the plan ends without {', '.join([*lacking, *too_much])}" if lacking or too_much else ""
