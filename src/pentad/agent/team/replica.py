"""Replica: one agent's copy of the team's shared state; copies converge, and no update is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pentad.agent.codec import Malformed, decode, dumps, encode
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json

MAX_BYTES = 4 << 20
"""Of one state as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value that was written: by whom, as which of its writes, under which key."""

    replica: str
    count: int
    """From 1, one more with each write of the replica."""
    key: str
    value: Any
    """A JSON value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A multi-value map: what has been written and not replaced, and which writes are known at all.

    Merging is commutative, associative and idempotent, so copies that have had the same writes by any
    way, in any order and any number of times are equal. A write replaces the values of its key that its
    writer knew; writes that did not know of each other are both kept, for whoever reads to reconcile.
    A replica's name belongs to one copy, which alone writes under it; two that share one lose writes.

    Source: Almeida et al. 2018, "Delta State Replicated Data Types", section 7 (causal contexts), and the
    observed-remove map of Shapiro et al. 2011. Ours ships whole states: those of a team are small.
    """

    entries: tuple[Entry, ...] = ()
    """In the order of replica and count."""
    known: Mapping[str, int] = field(default_factory=dict)
    """For each replica how many of its writes are known; all up to that one are."""

    def get(self, key: str) -> tuple[Any, ...]:
        """The values of a key: none, one, or those that were written without knowing of each other."""
        return tuple(entry.value for entry in self.entries if entry.key == key)

    def keys(self) -> tuple[str, ...]:
        """The keys that have values, sorted."""
        return tuple(sorted({entry.key for entry in self.entries}))

    def put(self, replica: str, key: str, value: Any) -> State:
        """The state after the replica wrote a value, which replaces all that it knew under the key."""
        count = self.known.get(replica, 0) + 1
        written = Entry(replica=replica, count=count, key=key, value=value)
        kept = (entry for entry in self.entries if entry.key != key)
        return State(entries=_sorted([*kept, written]), known={**self.known, replica: count})

    def drop(self, key: str) -> State:
        """The state without the values known under the key; those written elsewhere meanwhile come back."""
        return State(entries=tuple(e for e in self.entries if e.key != key), known=self.known)

    def merge(self, other: State) -> State:
        """What both know together. An entry that only one has stays unless the other knew and replaced it."""
        mine = {(e.replica, e.count): e for e in self.entries}
        theirs = {(e.replica, e.count): e for e in other.entries}
        kept = {dot: e for dot, e in mine.items() if dot in theirs or dot[1] > other.known.get(dot[0], 0)}
        kept |= {dot: e for dot, e in theirs.items() if dot in mine or dot[1] > self.known.get(dot[0], 0)}
        names = {*self.known, *other.known}
        known = {name: max(self.known.get(name, 0), other.known.get(name, 0)) for name in names}
        return State(entries=_sorted(kept.values()), known=known)

    def text(self) -> str:
        """The state as it travels; equal states have equal texts."""
        return dumps(encode(self))

    def check_integrity(self) -> list[str]:
        """What cannot be true of a state; empty for every one that came of `put`, `drop` and `merge`."""
        dots = [(entry.replica, entry.count) for entry in self.entries]
        problems = [f"entry {dot} twice" for dot in {d for d in dots if dots.count(d) > 1}]
        problems += [f"entry {d} is not known" for d in dots if not 1 <= d[1] <= self.known.get(d[0], 0)]
        return problems


def read(text: str | bytes) -> State:
    """The state that a text is. Raises InvalidRequest, and nothing else, for one that is none."""
    if len(text) > MAX_BYTES:
        raise InvalidRequest(f"a shared state of {len(text)} bytes is over the limit of {MAX_BYTES}")
    try:
        state = decode(State, parse_json(text))
    except (Malformed, ValueError) as error:
        raise InvalidRequest(f"this is no shared state: {str(error)[:200]}") from None
    problems = state.check_integrity()
    if problems:
        raise InvalidRequest(f"this is no shared state: {problems[0]}")
    return State(entries=_sorted(state.entries), known=state.known)


def _sorted(entries: Iterator[Entry] | Any) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.replica, entry.count)))
