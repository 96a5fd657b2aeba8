"""calculator: exact arithmetic, so that the model need not know its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.agent.tools.builtin.arithmetic import BadExpression, evaluate, read_aloud
from pentad.errors import ToolFailed


def build(_: ToolServices) -> Tool:
    """The tool. It needs nothing, so any agent can have it."""

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        try:
            # With the expression: the model that reads it may have several results before it.
            return f"{read_aloud(arguments['expression'])} = {evaluate(arguments['expression'])}"
        except BadExpression as error:
            raise ToolFailed(f"cannot compute {arguments['expression'][:80]!r}: {error}") from None

    return Tool(
        name="calculator",
        description=(
            "Computes an arithmetic expression exactly. The sign % is always per cent, as in `% of`, never "
            "a remainder, which is written `mod`."
        ),
        parameters={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "Numbers with + - * / ^ ( ) sqrt, `% of`, mod",
                }
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
                task="what is 8 percent of 450",
                arguments={"expression": "8% of 450"},
                result="8% of 450 = 36",
            ),
            Example(
                task="what is 700 divided by 28",
                arguments={"expression": "700 / 28"},
                result="700 / 28 = 25",
            ),
        ),
    )
