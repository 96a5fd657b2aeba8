"""Calls that use the results of earlier ones of the same step: what `$n` in their arguments becomes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from pentad.agent.budget import Amount
from pentad.agent.exchange import Exchange
from pentad.agent.parallel import together
from pentad.agent.planning.base import Needs
from pentad.agent.run import Run
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Tool
from pentad.agent.tools.invocation import Outcome
from pentad.json_text import parse_json
from pentad.types import ToolCall

_REFERENCE = re.compile(r"\$(\d{1,2})(?!\d)(?:\.([A-Za-z_]\w*))?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


async def in_order(
    run: Run,
    exchange: Exchange,
    needs: Needs,
    tools: Mapping[str, Tool],
    one: Callable[[Exchange, int, ToolCall | Outcome], Awaitable[None]],
) -> None:
    """Makes each call of an exchange as soon as those that it needs have returned.

    Args:
        one: carries out the call at a place, or writes down its outcome where it is not made.

    Raises:
        BudgetExceeded: not all of them can be afforded; none has begun.
    """
    begun = run.state.intents
    fresh = [p for p in exchange.open_calls if (exchange.step, exchange.first + p) not in begun]
    cost = sum(tools[exchange.calls[p].name].cost for p in fresh if exchange.calls[p].name in tools)
    run.state.ledger.check(Amount(tool_calls=len(fresh), cost=cost))
    returned = [asyncio.Event() for _ in exchange.calls]

    async def make(place: int) -> None:
        for other in needs[place]:
            await returned[other].wait()
        results = next(e for e in run.state.open if e.branch == exchange.branch).results
        if place not in results:
            wanted = exchange.calls[place]
            lost = [n + 1 for n in needs[place] if results[n].status not in ("ok", "unknown")]
            text = f"not called: call {lost[0]}, whose result it needs, failed" if lost else ""
            made = Outcome(status="failed", content=text) if lost else None
            await one(exchange, place, made or filled(wanted, tools.get(wanted.name), results))
        returned[place].set()

    await together(make(place) for place in range(len(exchange.calls)))


def referred(arguments: str) -> tuple[int, ...]:
    """The places (from 0) of the calls that the arguments refer to, in order, each once."""
    return tuple(sorted({int(number) - 1 for number, _ in _REFERENCE.findall(arguments)}))


def filled(wanted: ToolCall, tool: Tool | None, results: Mapping[int, ToolReturned]) -> ToolCall:
    """The call with each `$n` replaced by what the n-th call (from 1) returned.

    `$n.field` is a field of a result that is a JSON object, of its own type; where there is no such field
    the point is only a point. A reference to a call without a result stays as it is. Where the argument is
    nothing but one reference and the tool's schema wants a number, it becomes the number in the result, if
    there is exactly one.

    Source: Kim et al. 2023, "An LLM Compiler for Parallel Function Calling", section 3.2, whose plans
    write `$n` too. Ours takes numbers out of sentences.
    """
    if not referred(wanted.arguments):
        return wanted
    try:
        arguments = parse_json(wanted.arguments)
    except (ValueError, RecursionError):
        return wanted
    if not isinstance(arguments, dict):
        return wanted
    properties = {} if tool is None else tool.parameters.get("properties", {})
    said = {place: result.content for place, result in results.items()}
    made = {name: _put(value, properties.get(name), said) for name, value in arguments.items()}
    return replace(wanted, arguments=json.dumps(made, ensure_ascii=False))


def _put(value: Any, schema: Any, said: Mapping[int, str]) -> Any:
    if isinstance(value, list):
        items = schema.get("items") if isinstance(schema, Mapping) else None
        return [_put(item, items, said) for item in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole and whole[2] and _has_field(whole, said):
        return _field(whole, said)
    if whole and not whole[2] and _numeric(schema) and int(whole[1]) - 1 in said:
        numbers = _NUMBER.findall(said[int(whole[1]) - 1].replace(",", ""))
        if len(numbers) == 1:
            return float(numbers[0]) if "." in numbers[0] else int(numbers[0])
    return _REFERENCE.sub(lambda found: _text(found, said), value)


def _text(found: re.Match[str], said: Mapping[int, str]) -> str:
    """What stands in the place of a reference inside a text."""
    if found[2] and _has_field(found, said):
        value = _field(found, said)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    rest = f".{found[2]}" if found[2] else ""
    result = said.get(int(found[1]) - 1)
    return found[0] if result is None else f"{result}{rest}"


def _has_field(found: re.Match[str], said: Mapping[int, str]) -> bool:
    return found[2] in _object(said.get(int(found[1]) - 1, ""))


def _field(found: re.Match[str], said: Mapping[int, str]) -> Any:
    return _object(said[int(found[1]) - 1])[found[2]]


def _object(text: str) -> Mapping[str, Any]:
    try:
        made = parse_json(text)
    except (ValueError, RecursionError):
        return {}
    return made if isinstance(made, dict) else {}


def _numeric(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") in ("integer", "number")
