"""Lineage: which items hold what another one says, since they are versions of it or were made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pentad.errors import NotFound


@dataclass(frozen=True, slots=True)
class Link:
    """What one item says about where it comes from."""

    id: str
    superseded_by: str | None
    derived_from: tuple[str, ...]


def lineage(idents: Iterable[str], links: Iterable[Link]) -> list[str]:
    """The items with their older and newer versions and all that was made of any of them, each once."""
    following: dict[str, list[str]] = defaultdict(list)
    for link in links:
        for source in link.derived_from:
            following[source].append(link.id)
        if link.superseded_by is not None:
            following[link.id].append(link.superseded_by)
            following[link.superseded_by].append(link.id)
    found: dict[str, None] = {}
    waiting = list(idents)
    while waiting:
        ident = waiting.pop()
        if ident not in found:
            found[ident] = None
            waiting += following[ident]
    return list(found)


def all_there(idents: Sequence[str], there: Iterable[str]) -> None:
    """Raises NotFound for the first id that is not there."""
    known = set(there)
    for ident in idents:
        if ident not in known:
            raise NotFound(f"no memory {ident!r}", hint="pentad memory list shows them")
