"""What a request's context says about when its turn should come, as the layers below the agent read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pentad.types import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnHints:
    """What objective, budget and hints of one request mean for a scheduler. None: they say nothing."""

    slack_s: float | None = None
    """Seconds from its arrival within which its first token is wished, or its share of a deadline ends."""
    remaining_steps: int | None = None
    """Requests of its run that are still to come, one after the other."""
    inter_token_s: float | None = None
    """Longest step that it wishes while it decodes."""


def turn_hints(context: RunContext) -> TurnHints | None:
    """The hints of a request, None where its context has none.

    A deadline, or what is left of the wall time, is shared out evenly between this request and the
    steps that are to come.
    """
    objective = context.objective
    remaining = remaining_steps(context)
    limits = (objective.deadline_s, context.budget.wall_s)
    shares = [limit / (1 + (remaining or 0)) for limit in limits if limit is not None]
    if objective.ttft_s is not None:
        shares.append(objective.ttft_s)
    if not shares and remaining is None and objective.inter_token_s is None:
        return None
    return TurnHints(
        slack_s=min(shares, default=None),
        remaining_steps=remaining,
        inter_token_s=objective.inter_token_s,
    )


def remaining_steps(context: RunContext) -> int | None:
    """Requests still to come behind this one; None where neither hints nor graph tell.

    Without a hint, the longest chain of steps of the graph that wait for the node, if it is one of them;
    without a node, what the graph has behind that many steps.
    """
    hints = context.hints
    if hints.remaining_steps is not None:
        return hints.remaining_steps
    if hints.next == "end":
        return 0
    if not context.graph:
        return None
    if context.node is None:
        return max(0, len(_names(context.graph)) - context.step) if context.step else None
    return _longest_chain(context.graph, context.node) if context.node in _names(context.graph) else None


def _names(graph: Mapping[str, tuple[str, ...]]) -> set[str]:
    return set(graph).union(*graph.values())


def _longest_chain(graph: Mapping[str, tuple[str, ...]], node: str) -> int:
    """Steps on the longest way from the node to one that nobody waits for. The graph has no circle.

    Relaxed level by level, so what does have one costs no more than the square of its size.
    """
    behind: dict[str, list[str]] = {}
    for name, waits_for in graph.items():
        for other in waits_for:
            behind.setdefault(other, []).append(name)
    depth, level = 0, {node}
    for _ in graph:
        level = {name for each in level for name in behind.get(each, ())}
        if not level:
            break
        depth += 1
    return depth
