"""Speculator: what the engine asks of a drafting strategy, and what it tells it of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.speculation.tree import TokenTree

Rates = tuple[float, ...]
"""By rank among siblings: how often that child of a reached node turned out to be the next token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPlan:
    """How much to draft for one sequence."""

    tokens: int
    """Nodes of the tree, at most."""
    depth: int
    """Tokens one behind the other, at most: as often a draft model has to run."""
    gain: float
    """Drafted tokens that are expected to be accepted."""
    shape: tuple[int, ...] = ()
    """Each node's parent, from strategies that plan that too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A sequence that wants drafts, as a speculator may see it."""

    id: str
    tenant: str
    cache_salt: str
    tokens: Sequence[int]
    """Prompt and generated tokens; the list grows and must not be changed."""
    reference: Sequence[int]
    """Text that the answer may repeat in parts."""
    plan: DraftPlan
    forced: Callable[[], Sequence[int]] = tuple
    """Tokens of what the output format leaves no choice about."""
    row: Callable[[tuple[int, ...]], SampleRow | None]
    """How the target draws behind these further tokens; None where nothing may follow them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verification made of a tree."""

    path: tuple[int, ...]
    """The accepted nodes, from the sequence's last token on."""
    drawn: tuple[Drawn, ...]
    """Their tokens and one more: the correction where a draft was rejected, else the bonus."""


class Speculator(Protocol):
    """Drafts and verifies for the sequences of one engine (coverage.md, interface 11).

    Driven by the engine's thread. What it keeps of a sequence is only ever a saving: it may be
    asked about any sequence in any state.
    """

    @property
    def name(self) -> str:
        """As registered."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether greedy tokens are the same as without, and drawn ones equally distributed."""
        ...

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        """What could be drafted with at most so many tokens, and the gain at these rates.

        Called often; equal rates come back, so results may be remembered.
        """
        ...

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        """A tree per ask, within its plan; None where there is nothing to say."""
        ...

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        """What the target makes of the tree.

        Args:
            tree: as it was computed.
            rows: how the target draws: behind the sequence's last token, then behind each node.
            drawn: what it drew there; raw logits where the row asked for them.
        """
        ...

    def forget(self, id: str) -> None:
        """The sequence ended."""
        ...

    def close(self) -> None:
        """Gives back what drafting held, draft models included."""
        ...


def chain_options(rate: float, most_tokens: int, sizes: tuple[int, ...]) -> tuple[DraftPlan, ...]:
    """Chains of the given sizes, as far as there is room. The rate is taken to two digits.

    The gain of k tokens is a + a^2 + ... + a^k where each is accepted with the chance a if the one
    in front of it was (Leviathan et al. 2023, equation 1, less the token that every step gives).
    """
    return _chains(round(rate, 2), most_tokens, sizes)


@lru_cache(maxsize=1024)
def _chains(rate: float, most_tokens: int, sizes: tuple[int, ...]) -> tuple[DraftPlan, ...]:
    return tuple(
        DraftPlan(tokens=k, depth=k, gain=sum(rate**i for i in range(1, k + 1)))
        for k in sizes
        if k <= most_tokens
    )
