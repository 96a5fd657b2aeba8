"""Texts that planners share."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pentad.agent.tools.base import Tool
from pentad.types import Message


def tool_lines(tools: Sequence[Tool]) -> str:
    """One line per tool: its name and the first sentence of its description."""
    return "\n".join(f"- {tool.name}: {_sentence(tool.description)}" for tool in tools)


def _sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def plan_example(tools: Sequence[Tool]) -> tuple[Message, ...]:
    """One worked plan made of the tools' own examples; small models copy its form.

    Empty unless two tools at least bring an example.
    """
    chosen = [(tool.name, tool.example) for tool in tools if tool.example][:2]
    if len(chosen) < 2:
        return ()
    goal = " and ".join(example.rstrip("?") for _, example in chosen) + "?"
    plan = {"plan": [{"task": example, "tool": name} for name, example in chosen]}
    return (
        Message(role="user", content=f"Goal: {goal}"),
        Message(role="assistant", content=json.dumps(plan)),
    )
