"""Forgetting a fact everywhere: the items that hold it, and the runs that told, recalled or repeated it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pentad.agent.erasure import remove_runs, with_sub_runs
from pentad.agent.journal_view import JournalView
from pentad.agent.memory.lineage import Link, all_there, lineage
from pentad.agent.memory.records import Memory, forget, memories


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Where a fact stands."""

    memories: tuple[str, ...]
    """Items: those named, their versions, what was made of them, and what the runs left that read them."""
    runs: tuple[str, ...]
    """Runs with their sub-runs that told an item, recalled it, or say its text."""


def traces(journal: JournalView, memory: pathlib.Path, idents: Sequence[str], *, tenant: str) -> Traces:
    """What has to go so that no file holds the items of a tenant any more.

    A run is found by the ids that it recalled and by the items' texts, word for word; who put the fact in
    other words is found only where such a run also told or recalled an item. Cost: reads the whole journal
    once for each item found.

    Raises NotFound: no such item; Conflict: a sub-run whose lead is gone.
    """
    kept = {str(m.item.id): m for m in memories(memory, tenant=tenant)}
    all_there(idents, kept)
    links = [Link(i, m.item.superseded_by, m.item.derived_from) for i, m in kept.items()]
    mine = {row.id for row in journal.runs(tenant=tenant)}
    gone: list[str] = []
    runs: dict[str, None] = {}
    waiting = list(idents)
    while waiting:
        found = [ident for ident in lineage([*gone, *waiting], links) if ident in kept and ident not in gone]
        gone += found
        told = [run_id for ident in found for run_id in _of(kept[ident], journal, mine)]
        fresh = [run_id for run_id in _whole(journal, told) if run_id not in runs]
        runs |= dict.fromkeys(fresh)
        sources = {kept[ident].item.source for ident in gone if kept[ident].item.kind != "episode"}
        waiting = [
            ident
            for ident, m in kept.items()
            if ident not in gone
            and m.item.source in runs
            # What else somebody said in the run that told the fact is another fact.
            and (m.item.kind == "episode" or m.item.source not in sources)
        ]
    return Traces(memories=tuple(gone), runs=tuple(runs))


def forget_everywhere(
    journal: JournalView, memory: pathlib.Path, idents: Sequence[str], *, tenant: str
) -> Traces:
    """Removes what `traces` finds from journal and memory, so that no byte of it stays; what went.

    Backups, exports and the files of tools stay as they are.

    Raises as `traces` does; Conflict, with nothing removed, while a process works on one of the runs.
    """
    found = traces(journal, memory, idents, tenant=tenant)
    if found.runs:
        remove_runs(journal.store, found.runs)
    forget(memory, found.memories, tenant=tenant)
    return found


def _of(memory: Memory, journal: JournalView, mine: Collection[str]) -> list[str]:
    """The tenant's runs that told the item or say its id or text."""
    item = memory.item
    needles = [json.dumps(str(item.id)), *_written(item.text)]
    found = dict.fromkeys([item.source, *journal.saying(needles)])
    return [run_id for run_id in found if run_id in mine]


def _written(text: str) -> list[str]:
    """The text as rows have it: in JSON, and in JSON within JSON, as arguments of tools are."""
    once = json.dumps(text)[1:-1]
    return list(dict.fromkeys([once, json.dumps(once)[1:-1]]))


def _whole(journal: JournalView, runs: Iterable[str]) -> list[str]:
    """The runs with those that led them and all their sub-runs."""
    return with_sub_runs(journal, list(dict.fromkeys(map(journal.root, runs))))
