"""WorkingMemory: notes of what a conversation has come to, and solved examples, beside its latest turns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.memory.base import Experience, Item, MemoryServices, Occasion, Recollection, Scope
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.ranges import in_range
from pentad.types import Message

_NOTE = (
    "You keep the notes of a conversation. From its newest turn write down what the user wants, gave or "
    "changed, one `name: value` per line, short names, values word for word. Use the names that are given or "
    "in the notes, and only for what this turn says. Write nothing else; write `none` where nothing is new."
)
_LINE = re.compile(r"^\W*([A-Za-z][\w /-]{0,40}?)\W*[:=]\s*(.+?)\s*$", re.MULTILINE)
_EMPTY = frozenset({"none", "unknown", "n/a", "not given", "not specified"})
_FETCHED = 4
"""Items looked at for each example asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingMemory:
    """Keeps a scratchpad of each conversation and recalls it with examples of how others went.

    After each turn (a run with the conversation as its history) the run's own model notes what is new as
    `name: value` lines; a later value takes an earlier one's place, and what is not mentioned stays. The
    turn that follows gets the notes and the nearest turns that were answered, so the window of the
    conversation itself may be short. Notes belong to exactly that conversation: one that was edited or goes
    on otherwise has those of its own turns.

    Source: Liu et al. 2024, "From LLM to Conversational Agent: A Memory Enhanced Architecture with
    Fine-Tuning of Large Language Models" (RAISE), section 3.2: conversation history, scratchpad, examples,
    task trajectory. Ours leaves the trajectory to the run's journal, and does not tune. Exactness: lossy; the
    metric is the accuracy of slots beside the history alone at the same prompt tokens. Cost: one short model
    call per turn.
    """

    slots: tuple[str, ...] = ()
    """Names of what is to be noted, as `guests`, `day`; empty leaves the names to the model."""
    note_tokens: int = 96
    """Of what the model notes after one turn, at most."""
    notes: int = 32
    """Lines that are kept, at most; the oldest go first."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "working-memory"

    def __post_init__(self) -> None:
        in_range("note_tokens", self.note_tokens, least=1)
        in_range("notes", self.notes, least=1)

    def open(self, services: MemoryServices) -> _Noting:
        """The file's items."""
        return _Noting(self, services)


class _Noting(Wrapped):
    def __init__(self, strategy: WorkingMemory, services: MemoryServices) -> None:
        super().__init__(Store().open(services))
        self._strategy = strategy
        self._slots = frozenset(map(_key, strategy.slots))

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Keeps the turn as an episode, and brings the conversation's notes up to it; once."""
        await self.inner.learn(experience, scope)
        said = [*_said(experience.history), ("user", experience.goal), ("assistant", experience.answer)]
        ident = _ident(said)
        if not experience.answered or await self.inner.item(ident, scope) is not None:
            return
        before = await self.inner.item(_ident(said[:-2]), scope)
        known: dict[str, str] = dict(before.details["notes"]) if before else {}
        turn = "\n".join(f"{role}: {text}" for role, text in said[-3:])
        slots = f"Names: {', '.join(self._strategy.slots)}\n" if self._strategy.slots else ""
        asked = f"{slots}Notes:\n{_lines(known) or 'none'}\n\nNewest turn:\n{turn}"
        known = self._merged(known, await experience.think(_NOTE, asked, self._strategy.note_tokens))
        if not known:
            return
        item = Item(
            id=ident,
            text=_lines(known),
            kind="episode",
            source=experience.run_id,
            derived_from=(*experience.recalled, *([str(before.id)] if before else [])),
            details={"notes": known},
        )
        if before and before.superseded_by is None:
            await self.supersede(str(before.id), item, scope)
        else:
            await self.write(item, scope)

    def _merged(self, known: dict[str, str], said: str) -> dict[str, str]:
        merged = dict(known)
        for name, value in _LINE.findall(said):
            key = _key(name)
            known_name = not self._slots or key in self._slots
            if known_name and value.strip(" .").casefold() not in _EMPTY:
                merged.pop(key, None)
                merged[key] = value
        return dict(list(merged.items())[-self._strategy.notes :])

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The nearest items that are no notes."""
        found = await self.inner.query(cue, k=_FETCHED * k, scope=scope)
        return [r for r in found if "notes" not in r.item.details][:k]

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """The notes of the conversation so far, if it has any, then the nearest items."""
        said = _said(occasion.history)
        notes = await self.inner.item(_ident(said), scope) if said else None
        if notes is None:
            return await self.query(occasion.goal, k=k, scope=scope)
        first = Recollection(item=notes, score=1.0, similarity=1.0, keyword=1.0, recency=1.0)
        found = await self.query(occasion.goal, k=k, scope=scope)
        return [first, *(r for r in found if r.item.source != notes.source)][:k]


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _said(history: Iterable[Message]) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in history if m.role in ("user", "assistant")]


def _ident(said: list[tuple[str, str]]) -> str:
    """The id of the notes that stand behind a conversation: of its own words, so of no other."""
    digest = hashlib.sha256(json.dumps(said).encode("utf-8", "replace")).hexdigest()
    return f"notes_{digest[:32]}"


def _lines(notes: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in notes.items())
