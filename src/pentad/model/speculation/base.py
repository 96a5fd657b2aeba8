"""What every drafting strategy declares, and the shapes that trees are planned in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pentad.errors import Incompatible
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Speculator

Exactness = Literal["lossless"]

Shape = tuple[int, ...]
"""A tree as planned: each node's parent, -1 for the last token of the text; level by level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be there beside the target."""

    least_drafts: int = 0
    """Draft models, with the target's tokenizer."""
    most_drafts: int = 0


class DraftStrategy(Protocol):
    """The settings of a way to draft; `start` makes the object that does it for one engine."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def needs(self) -> Needs: ...

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> Speculator:
        """A speculator for a target of so many tokens; the draft models are closed with it.

        Raises:
            Incompatible: too few or too many draft models.
        """
        ...


def check_drafts(name: str, needs: Needs, drafts: int) -> None:
    """Raises Incompatible unless the strategy can use exactly so many draft models."""
    if drafts < needs.least_drafts:
        raise Incompatible(
            f"speculation {name!r} needs {needs.least_drafts} draft model, {drafts} are given",
            hint="set --draft-model to a smaller model with the same tokenizer",
            param="draft_models",
        )
    if drafts > needs.most_drafts:
        raise Incompatible(
            f"speculation {name!r} uses at most {needs.most_drafts} draft models, {drafts} are given",
            hint="leave --draft-model out" if not needs.most_drafts else "give fewer --draft-model",
            param="draft_models",
        )


def chain_shape(depth: int) -> Shape:
    """Nodes one behind the other."""
    return tuple(range(-1, depth - 1))


def level_shape(widths: Sequence[int]) -> Shape:
    """Every node of a level has as many children as the level's width says."""
    parents: list[int] = []
    level = [-1]
    for width in widths:
        first = len(parents)
        parents += [node for node in level for _ in range(width)]
        level = list(range(first, len(parents)))
    return tuple(parents)
