"""The plan of a run: what it looks like as JSON, how it is asked for, and what may stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pentad.agent.exchange import Exchange
from pentad.agent.planning.progress import leaked
from pentad.agent.tools.base import Tool
from pentad.json_text import parse_json
from pentad.types import Message

SubGoals = tuple[tuple[str, str], ...]


def plan_schema(tools: Sequence[Tool], fewest: int, most: int) -> dict[str, Any]:
    """The JSON Schema of a plan: tasks in order, each with one of the tools."""
    item = {
        "type": "object",
        "properties": {"task": {"type": "string"}, "tool": {"enum": [tool.name for tool in tools]}},
        "required": ["task", "tool"],
        "additionalProperties": False,
    }
    plan = {"type": "array", "items": item, "minItems": fewest, "maxItems": most}
    return {
        "type": "object",
        "properties": {"plan": plan},
        "required": ["plan"],
        "additionalProperties": False,
    }


def planned_goals(answer: Exchange) -> SubGoals:
    """The sub-goals in a plan's text, as (tool, task). Raises ValueError, TypeError or KeyError."""
    items: Any = parse_json(answer.text)["plan"]
    return tuple((str(item["tool"]), str(item["task"])) for item in items)


def own_goals(goals: SubGoals, shots: Sequence[Message], given: str) -> SubGoals:
    """The sub-goals without repetitions and without what a small model copied from the examples.

    Args:
        shots: the worked examples that the model was shown.
        given: the goal, with everything else that the model was told about it.
    """
    own = (goal for goal in dict.fromkeys(goals) if not leaked(goal[1], shots, given))
    return tuple(own)
