"""Suite nestful: the released nested calls with mathematical functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

from pentad.agent.chained_calls import filled
from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act
from pentad.agent.evaluation.base import Case, CaseSource, Setting, Turn
from pentad.agent.evaluation.bfcl import as_schema
from pentad.agent.evaluation.call_sequence import FUNCTIONS, Nest, carried_out, computed, same_calls
from pentad.agent.evaluation.data import field_of, lines_of
from pentad.agent.state import RunState
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json

_FILE = "nestful_data.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nestful:
    """Nested sequences of mathematical functions, really computed; the last result or all calls count.

    Source: Basu et al. 2024, "NESTFUL". Sequences with functions that are not mathematical (their code is
    a part of the data set) are left out.
    """

    judged_by: Literal["win", "full-match"] = "win"
    """`win`: the last result is the right one; `full-match`: all calls with their arguments are, in order."""

    name: ClassVar[str] = "nestful"
    files: ClassVar[tuple[str, ...]] = (_FILE,)
    extra: ClassVar[str] = ""
    setting: ClassVar[Setting] = Setting(
        instructions="Compute by calling functions, one at a time; feed each result into the next call.",
        max_steps=12,
    )

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The mathematical ones in the order of the file."""
        lines = lines_of(source, self.name, _FILE)
        return list(islice(filter(None, map(self._case, lines)), source.limit))

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 for the right result, or the right sequence; the other is told."""
        gold = carried_out([Nest(**call) for call in case.gold])
        made = []
        for exchange in state.exchanges:
            for place, result in sorted(exchange.results.items()):
                # As it was made: a planner may have written `$1` for the result of another call.
                call = filled(exchange.calls[place], None, exchange.results)
                if result.status == "ok" and call.name in FUNCTIONS:
                    arguments = parse_json(call.arguments or "{}")
                    made.append((Nest(name=call.name, arguments=arguments), computed(call.name, arguments)))
        full = same_calls(made, gold)
        win = bool(made) and abs(made[-1][1] - gold[-1][1]) <= 1e-6 * max(1.0, abs(gold[-1][1]))
        told = f"win: {'yes' if win else 'no'}, full match: {'yes' if full else 'no'}"
        return Score(value=float(win if self.judged_by == "win" else full), about=told)

    def _case(self, item: dict[str, Any]) -> Case | None:
        calls = [_nest(call) for call in _data(item, "output")]
        if any(call.name not in FUNCTIONS for call in calls):
            return None
        done = carried_out(calls)
        right = float(item["gold_answer"])
        if abs(done[-1][1] - right) > 0.01 * max(1.0, abs(right)):
            raise InvalidRequest(
                f"the calls of {item.get('sample_id')!r} come to {done[-1][1]}, its answer is {right}",
                hint="give the published file",
                param="data",
            )
        offered = [_described(tool) for tool in _data(item, "tools") if tool["name"] in FUNCTIONS]
        turns: list[Turn] = [(Act(tool=call.name, arguments=call.arguments),) for call, _ in done]
        return Case(
            id=str(item["sample_id"]),
            goal=field_of(item, "input", str, _FILE),
            environment=Choice(name="computed", options={"functions": offered, "target": done[-1][1]}),
            gold=[{"name": c.name, "arguments": dict(c.arguments), "label": c.label} for c in calls],
            solution=(*turns, "Done."),
        )


def _data(item: dict[str, Any], name: str) -> list[Any]:
    """A field that holds a list, or its JSON."""
    value = item.get(name)
    found = parse_json(value) if isinstance(value, str) else value
    if not isinstance(found, list):
        raise InvalidRequest(
            f"a line of {_FILE!r} has no list {name!r}", hint="give the published file", param="data"
        )
    return found


def _nest(call: Mapping[str, Any]) -> Nest:
    return Nest(name=call["name"], arguments=dict(call["arguments"]), label=call.get("label", ""))


def _described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The function as it is offered; the data set lists parameters without a schema around them."""
    given = tool["parameters"]
    properties = {
        name: {**as_schema(described), "type": "number"}
        for name, described in given.get("properties", given).items()
        if name.startswith("arg")
    }
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"name": tool["name"], "description": tool.get("description", ""), "parameters": parameters}
