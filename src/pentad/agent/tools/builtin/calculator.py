"""calculator: exact arithmetic, so that the model need not know its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.agent.tools.builtin.arithmetic import BadExpression, evaluate
from pentad.errors import ToolFailed


def build(_: ToolServices) -> Tool:
    """The tool. It needs nothing, so any agent can have it."""

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        try:
            # With the expression: the model that reads it may have several results before it.
            return f"{' '.join(arguments['expression'].split())} = {evaluate(arguments['expression'])}"
        except BadExpression as error:
            raise ToolFailed(f"cannot compute {arguments['expression'][:80]!r}: {error}") from None

    return Tool(
        name="calculator",
        description="Computes an arithmetic expression exactly. For example 12 * (3 + 4.5) or sqrt(2).",
        parameters={
            "type": "object",
            "properties": {
                "expression": {"type": "string", "description": "Numbers and + - * / ^ ( ), e.g. 23 * 4"}
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        timeout_s=5.0,
        examples=(
            Example(
                task="12 times 9",
                arguments={"expression": "12 * 9"},
                result="12 * 9 = 108",
            ),
            Example(
                task="how much is 75 - 31",
                arguments={"expression": "75 - 31"},
                result="75 - 31 = 44",
            ),
            Example(
                task="what is 900 divided by 36",
                arguments={"expression": "900 / 36"},
                result="900 / 36 = 25",
            ),
        ),
    )
