"""Jumping forward: what an output format leaves no choice about is drafted as one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict, chain_options
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, check_drafts

_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """Drafts the text that a grammar or schema forces next: names of fields, punctuation, fixed words.

    Costs a look into the grammar per step, and nothing where no format holds. A model may cut the same text
    into other tokens; from there on the draft is dropped, so the tokens are those of plain decoding.
    Exactness: lossless.

    Source: jump-forward decoding of SGLang (Zheng et al., 2024, section 4). Our difference: forced text is
    verified as a draft in one step, in the place of being appended unseen, so the model keeps its own cut
    into tokens and nothing has to be computed again.
    """

    name: ClassVar[str] = "forced"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs()

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> Jumper:  # noqa: ARG002
        check_drafts(self.name, self.needs, len(drafts))
        return Jumper()


class Jumper:
    """Jumps for the sequences of one engine; keeps nothing of them."""

    lossless = True
    name = Forced.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        return chain_options(rates[0], most_tokens, _SIZES)

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        forced = [tuple(ask.forced())[: ask.plan.tokens] for ask in asks]
        return [chain(list(tokens)) if tokens else None for tokens in forced]

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        pass

    def close(self) -> None:
        pass
