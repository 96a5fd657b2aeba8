"""Coding sessions: agents at work, as their requests tell it, with the identities of the prompts' blocks.

    n0 --tool--> n1 --tool--> n2 -------------------------------> n3 --person--> n4
                               `--> sub-agent a: a0 --> a1 --.     ^
                               `--> sub-agent b: b0 ----------`----'

A request waits for the one in front of it and for the sub-agents that were started in between. What it
announces is that more follows, as an agent would, and not when: that is for the server to learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, TypeVar

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.simulator.trace import TraceItem
from pentad.types import Hints

T = TypeVar("T")
_LONGEST_PAUSE_S: Final = 300.0
_GOES_ON: Final = Hints(next="tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionScale:
    """How sessions are made smaller, so that a smaller model on a smaller machine has the same work to share.

    Tokens and times are divided; which parts of a prompt are equal, and what waits for what, stays. Of the
    files of a folder some may be taken, so that others remain for a judgement of what was tuned on these.
    """

    tokens: float = 1.0
    """Of the trace that make one here."""
    time: float = 1.0
    """Seconds of the trace that make one here."""
    longest_pause_s: float = _LONGEST_PAUSE_S
    """Of the trace: people who were away for hours are taken to have been away that long."""
    runs_per_s: float = 1.0
    """Sessions that begin in a second here, one after the other; the files do not tell."""
    first: int = 0
    """Which file of a folder, in the order of their names, is the first one taken; from 0."""
    every: int = 1
    """Of the files from there, one in so many is taken."""
    most: int | None = None
    """Files that are taken; None: all."""

    def __post_init__(self) -> None:
        in_range("token_scale", self.tokens, above=0)
        in_range("time_scale", self.time, above=0)
        in_range("longest_pause_s", self.longest_pause_s, least=0)
        in_range("runs_per_s", self.runs_per_s, above=0)
        in_range("first", self.first, least=0)
        in_range("every", self.every, least=1)
        in_range("limit", self.most, least=1)

    def taken(self, files: Sequence[T]) -> Sequence[T]:
        """Those files of a folder that are read."""
        return files[self.first :: self.every][: self.most]


def session_items(
    session: Mapping[str, Any], name: str, begin_s: float, scale: SessionScale
) -> list[TraceItem]:
    """The requests of one session, those of its sub-agents before whoever waits for them.

    Args:
        session: `requests` in order, with `block_size` (tokens of a block, 64 where absent). A request has
            `in` and `out` tokens, `block_ranges` (identities of its prompt's blocks, as inclusive ranges) and
            `think_time`, the seconds in front of it; of type `subagent` it has `requests` of its own.
        name: of the run; begins the items' ids.
        begin_s: when the session begins.
        scale: see there.

    Raises:
        InvalidRequest, KeyError, TypeError, ValueError: it is no such session.
    """
    reader = _Reader(name, int(session.get("block_size", 64)), scale)
    reader.read(session["requests"], "", None, begin_s)
    return reader.items


class _Reader:
    """Goes through one session, depth first."""

    def __init__(self, name: str, block_size: int, scale: SessionScale) -> None:
        if block_size < 1:
            raise InvalidRequest(f"block_size is {block_size}, must be at least 1")
        self.items: list[TraceItem] = []
        self._name = name
        self._block_size = block_size
        self._scale = scale
        self._base = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "little")

    def read(
        self, requests: Iterable[Mapping[str, Any]], path: str, parent: str | None, begin_s: float
    ) -> tuple[str, ...]:
        """Reads a thread of requests behind `parent`; the ids of those that end it."""
        before: str | None = None
        open_ends = [] if parent is None else [parent]
        ended_s = 0.0
        for number, request in enumerate(requests):
            where = f"{path}/{number}"
            started_s = float(request.get("t", 0.0))
            if request["type"] == "subagent":
                first = len(self.items)
                open_ends += self.read(request["requests"], where, before, begin_s)
                if before is not None and first < len(self.items):
                    pause_s = self._pause_s(started_s - ended_s)
                    self.items[first] = replace(self.items[first], pause_s=pause_s)
                continue
            item = self._item(request, where, before, tuple(open_ends), begin_s)
            if path:
                item = replace(item, run=self._name + path, root=self._name)
            self.items.append(item)
            before, open_ends = item.id, []
            ended_s = started_s + float(request.get("api_time") or 0.0)
        if before is None:
            return tuple(end for end in open_ends if end != parent)
        return tuple(open_ends) or (before,)

    def _pause_s(self, seconds: float) -> float:
        return min(max(0.0, seconds), self._scale.longest_pause_s) / self._scale.time

    def _item(
        self, request: Mapping[str, Any], where: str, before: str | None, joins: tuple[str, ...], at_s: float
    ) -> TraceItem:
        tokens = max(1, round(int(request["in"]) / self._scale.tokens))
        waits = before is not None or bool(joins)
        return TraceItem(
            id=f"{self._name}{where}",
            arrival_s=at_s,
            prompt_tokens=tokens,
            output_tokens=max(1, round(int(request["out"]) / self._scale.tokens)),
            blocks=tuple(
                (self._base + int(first), self._base + int(last))
                for first, last in request.get("block_ranges", ())
            ),
            block_tokens=self._block_size / self._scale.tokens,
            after=before,
            joins=joins,
            pause_s=self._pause_s(float(request.get("think_time") or 0.0)) if waits else 0.0,
            run=self._name,
            hints=_GOES_ON,
        )
