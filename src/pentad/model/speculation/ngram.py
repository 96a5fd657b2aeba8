"""Copying: what followed the same words before is drafted again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict, chain_options
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, check_drafts

_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 63)
_PLACES = 32
"""Latest occurrences of an n-gram that are compared."""
_BORDER = -1
"""Stands between the reference and the text; no token equals it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NGram:
    """Looks for the latest tokens in prompt, output and reference, and drafts what followed them there.

    Pays where answers repeat their context: edits of code, summaries, quotes, tables, agents that
    copy results. Costs some microseconds per step and needs no second model. The longer the match,
    the longer the draft. Exactness: lossless, and the same tokens even when sampling.

    Source: LLMA (Yang et al. 2023), which copies from reference texts, and prompt lookup. Our
    difference: the longest of the latest matches is taken, over prompt, output and reference
    alike; the draft's length follows the match, and a copy that reaches its own end goes on
    repeating.

    Raises InvalidRequest for a match shorter than one token.
    """

    name: ClassVar[str] = "ngram"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs()

    least_match: int = 2
    """Tokens that must agree before anything is drafted."""
    most_match: int = 32
    """Tokens compared, to tell a good place from a better one."""
    tokens_per_match: int = 2
    """Tokens drafted, at most, for each token that agrees."""

    def __post_init__(self) -> None:
        if not 1 <= self.least_match <= self.most_match or self.tokens_per_match < 1:
            raise InvalidRequest(
                f"n-gram matches of {self.least_match} to {self.most_match} tokens with "
                f"{self.tokens_per_match} drafted for each are impossible",
                hint="least_match is at least 1 and at most most_match",
            )

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> Copier:  # noqa: ARG002
        check_drafts(self.name, self.needs, len(drafts))
        return Copier(self)


class Copier:
    """Copies for the sequences of one engine."""

    lossless = True

    def __init__(self, strategy: NGram) -> None:
        self._strategy = strategy
        self._texts: dict[str, _Text] = {}

    @property
    def name(self) -> str:
        return self._strategy.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        return chain_options(rates[0], most_tokens, _SIZES)

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        trees: list[TokenTree | None] = []
        for ask in asks:
            text = self._texts.get(ask.id)
            if text is None:
                text = self._texts[ask.id] = _Text(self._strategy, ask.reference)
            copied = text.follow(ask.tokens, ask.plan.tokens)
            trees.append(chain(copied) if copied else None)
        return trees

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        self._texts.pop(id, None)

    def close(self) -> None:
        self._texts.clear()


@dataclass(slots=True)
class _Text:
    """Reference and text of one sequence, end to end, and where its n-grams occur.

    tokens   [ reference ... | -1 | prompt ... | output ... ]
    places   n-gram -> the index behind each of its occurrences, if a token stands there
    """

    strategy: NGram
    reference: Sequence[int]
    tokens: list[int] = field(init=False)
    places: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    _from: int = field(init=False)
    _indexed: int = 0

    def __post_init__(self) -> None:
        self.tokens = [*self.reference, _BORDER] if self.reference else []
        self._from = len(self.tokens)

    def follow(self, tokens: Sequence[int], most: int) -> list[int]:
        """What followed the latest tokens elsewhere, at most `most`."""
        self.tokens += tokens[len(self.tokens) - self._from :]
        self._index()
        least = self.strategy.least_match
        if len(self.tokens) - self._from < least:
            return []
        best, best_length = -1, least - 1
        for place in reversed(self.places.get(tuple(self.tokens[-least:]), [])[-_PLACES:]):
            length = self._agreement(place)
            if length > best_length:
                best, best_length = place, length
                if length >= self.strategy.most_match:
                    break
        if best < 0:
            return []
        return self._copy(best, min(most, best_length * self.strategy.tokens_per_match))

    def _index(self) -> None:
        """Adds the n-grams that have got a token behind them."""
        least = self.strategy.least_match
        for end in range(max(self._indexed, least), len(self.tokens)):
            self.places.setdefault(tuple(self.tokens[end - least : end]), []).append(end)
        self._indexed = max(self._indexed, len(self.tokens))

    def _agreement(self, place: int) -> int:
        """How many tokens in front of `place` are also the latest ones."""
        tokens, length = self.tokens, self.strategy.least_match
        most = min(self.strategy.most_match, place)
        while length < most and tokens[place - length - 1] == tokens[-length - 1] != _BORDER:
            length += 1
        return length

    def _copy(self, place: int, count: int) -> list[int]:
        copied: list[int] = []
        for i in range(place, place + count):
            token = self.tokens[i] if i < len(self.tokens) else copied[i - len(self.tokens)]
            if token == _BORDER:
                break
            copied.append(token)
        return copied
