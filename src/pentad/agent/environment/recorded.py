"""Recorded: tools answer as they did in an earlier run; nothing is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pentad.agent.environment.base import Ability, EnvironmentServices, Score, Snapshot
from pentad.agent.events import Record
from pentad.agent.state import fold
from pentad.agent.tool_events import ToolIntended, ToolReturned, ToolStatus
from pentad.agent.tools.base import Tool, ToolContext
from pentad.errors import Forbidden, InvalidRequest, ToolFailed
from pentad.json_text import parse_json

Wanted = tuple[str, str]
"""A tool's name and its arguments in canonical JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Replays the tool results of a run and its sub-runs: a run goes again without any effect.

    The same call gets the result that it had, the second time the second one, and so on, then the
    last again. A call that was not recorded fails and tells the model so. So a run under the same
    model, seed and agent takes the same way; under another, it shows how far that one agrees.
    Cost: reading the recorded run once.
    """

    run: str = ""
    """Id of the run, of the same tenant; must be given."""

    can: ClassVar[frozenset[Ability]] = frozenset({"reset", "snapshot", "score"})
    name: ClassVar[str] = "recorded"

    def check(self) -> None:
        """Raises InvalidRequest where no run is named."""
        if not self.run:
            raise InvalidRequest(
                "environment 'recorded' replays a run, and none is named",
                hint="set its option run, or use pentad runs replay RUN",
                param="environment.run",
            )

    async def open(self, services: EnvironmentServices) -> Recording:
        """The recording, standing where the calls of this run have come to."""
        self.check()
        recorded: dict[Wanted, list[ToolReturned]] = {}
        waiting = [self.run]
        while waiting:
            records = await services.read(waiting.pop(0))
            for wanted, result in calls_of(records):
                recorded.setdefault(wanted, []).append(result)
            waiting += [child.run_id for _, child in sorted(fold(records).children.items())]
        recording = Recording(self.run, recorded)
        for exchange in services.state.exchanges:
            for index in sorted(exchange.results):
                call = exchange.calls[index]
                recording.count((call.name, canonical(call.arguments)))
        return recording


class Recording:
    """The results of a run by call, and how often each was asked for again."""

    def __init__(self, run_id: str, recorded: Mapping[Wanted, Sequence[ToolReturned]]) -> None:
        self._run_id = run_id
        self._recorded = recorded
        self._asked: Counter[Wanted] = Counter()

    def count(self, wanted: Wanted) -> int:
        """How often this was asked for before; it is once more from now on."""
        before = self._asked[wanted]
        self._asked[wanted] += 1
        return before

    def tools(self, own: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The tools, each answering from the record, free of cost and effect."""
        return {name: self._replayed(tool) for name, tool in own.items()}

    def _replayed(self, tool: Tool) -> Tool:
        async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
            wanted = (tool.name, canonical(json.dumps(arguments)))
            results = self._recorded.get(wanted, ())
            place = self.count(wanted)
            if not results:
                raise ToolFailed(f"run {self._run_id!r} has no such call of {tool.name!r}; nothing was done")
            return _result(results[min(place, len(results) - 1)])

        return replace(tool, call=call, effects="none", cost=0.0)

    def observe(self) -> str:
        """Nothing: a record shows only what was asked."""
        return ""

    def reset(self, seed: int) -> None:  # noqa: ARG002
        """Back to the first result of each call; nothing is left to chance."""
        self._asked.clear()

    def snapshot(self) -> Snapshot:
        """How often each call was made."""
        return {"asked": [[*wanted, count] for wanted, count in sorted(self._asked.items())]}

    def restore(self, snapshot: Snapshot) -> None:
        """Back to those counts."""
        self._asked = Counter({(tool, arguments): count for tool, arguments, count in snapshot["asked"]})

    def score(self) -> Score:
        """The share of recorded calls that were made again, as often as they had been."""
        whole = sum(map(len, self._recorded.values()))
        again = sum(min(self._asked[wanted], len(results)) for wanted, results in self._recorded.items())
        strange = sum(count for wanted, count in self._asked.items() if wanted not in self._recorded)
        about = f"{again} of {whole} recorded calls were made again, {strange} calls were not recorded"
        return Score(value=again / whole if whole else 1.0, about=about)


def calls_of(records: Sequence[Record]) -> list[tuple[Wanted, ToolReturned]]:
    """Every call of a run that came to its tool or to a person, with its whole result, in order.

    Sub-runs are no calls here: they have records of their own. What was refused before it came to
    anything is left out, since it is refused again by the same rules.
    """
    state = fold(records)
    came = {(r.event.step, r.event.index) for r in records if isinstance(r.event, ToolIntended)}
    came |= {(answer.step, answer.index) for answer in state.answers.values()}
    came -= set(state.children)
    results = {(r.event.step, r.event.index): r.event for r in records if isinstance(r.event, ToolReturned)}
    found = []
    for exchange in state.exchanges:
        for index, call in enumerate(exchange.calls, exchange.first):
            result = results.get((exchange.step, index))
            if result is not None and (exchange.step, index) in came:
                found.append(((call.name, canonical(call.arguments)), result))
    return found


def canonical(arguments: str) -> str:
    """Arguments as JSON that is the same however they were written; as they are where they are none."""
    try:
        return json.dumps(parse_json(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _result(result: ToolReturned) -> str:
    """The recorded content, as what it was."""
    status: ToolStatus = result.status
    if status == "denied":
        raise Forbidden(result.content)
    if status != "ok":
        raise ToolFailed(result.content)
    return result.content
