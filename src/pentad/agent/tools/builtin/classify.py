"""`classify`: which of some labels a text has, as the run's model sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext, ToolServices
from pentad.errors import InvalidRequest, ToolFailed

_TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 1}},
    "required": ["text"],
    "additionalProperties": False,
}


def build(
    _: ToolServices,
    *,
    labels: tuple[str, ...] = (),
    question: str = "Which label fits the text?",
    max_tokens: int = 12,
) -> Tool:
    """A tool that has the run's model name one of the labels, on the run's budget.

    Args:
        labels: two or more.
        question: what the label says.
        max_tokens: of the model's answer.

    Raises InvalidRequest without two labels.
    """
    if len(set(labels)) < 2:
        raise InvalidRequest(
            "the tool classify has no labels to choose from",
            hint="give tool_options.classify.labels, two or more",
            param="tool_options.classify.labels",
        )
    listed = ", ".join(labels)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        if context.ask is None:
            raise ToolFailed("classifying needs a model")
        system = f"{question} Answer with one of these labels and nothing else: {listed}."
        said = await context.ask(system, arguments["text"], max_tokens)
        found = [(m.start(), -len(label), label) for label in labels if (m := _named(label, said))]
        if not found:
            raise ToolFailed(f"the model named none of {listed}: {said[:100]!r}")
        return min(found)[2]

    return Tool(
        name="classify",
        description=f"Says which of these a text is: {listed}.",
        parameters=_TEXT,
        call=call,
        effects="none",
        timeout_s=120.0,
    )


def _named(label: str, said: str) -> re.Match[str] | None:
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", said, re.IGNORECASE)
