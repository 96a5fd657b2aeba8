"""Speculative decoding with a draft model: a chain of its guesses, judged by rejection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict, chain_options
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, chain_shape, check_drafts
from pentad.model.speculation.drafter import Drafter

_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftModel:
    """A smaller model with the same tokenizer writes a few tokens; the target judges them at once.

    Pays where the draft model is much cheaper and often right. Costs one run of the draft model
    per drafted token, its weights and its KV cache. Exactness: lossless; drawn text is equally
    distributed, but which tokens a seed gives depends on what was drafted.

    Source: Leviathan et al. 2023 (algorithm 1), with the token drawn for nothing when all are
    accepted, and everything behind the first rejection dropped. Our difference: a branch ends where
    the draft model is unsure, which is decided before anything is drawn from it.

    Raises InvalidRequest for a confidence outside 0 to 1.
    """

    name: ClassVar[str] = "draft"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs(least_drafts=1, most_drafts=1)

    least_confidence: float = 0.5
    """Where the draft model's most probable token has less, drafting ends. 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_confidence <= 1:
            raise InvalidRequest(f"least_confidence is {self.least_confidence}, must be 0 to 1")

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> ChainDrafter:
        check_drafts(self.name, self.needs, len(drafts))
        return ChainDrafter(self, Drafter(drafts[0], vocab_size, least_confidence=self.least_confidence))


class ChainDrafter:
    """Drafts chains for the sequences of one engine."""

    lossless = True

    def __init__(self, strategy: DraftModel, drafter: Drafter) -> None:
        self._strategy = strategy
        self.drafter = drafter

    @property
    def name(self) -> str:
        return self._strategy.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        return chain_options(rates[0], most_tokens, _SIZES)

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        return self.drafter.grow(asks, lambda ask: chain_shape(ask.plan.tokens))

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        self.drafter.forget(id)

    def close(self) -> None:
        self.drafter.close()
