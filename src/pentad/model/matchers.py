"""Matchers: grammars compiled by llguidance for one model's tokens, kept and copied."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from pentad.errors import InvalidRequest
from pentad.execution.request import Constraint
from pentad.model.grammar_checker import Verdict
from pentad.model.grammar_worker import parser_limits
from pentad.model.reasoning.budget import BudgetedConstraint, ReasoningBudget
from pentad.model.tokenizer import Tokenizer

CACHED_GRAMMARS = 64
CACHED_BYTES = 128 << 20
"""Compiled grammars that are kept, by number and by the memory that they take."""
BYTES_PER_CHAR = 64
"""Memory of a compiled grammar at least, per character of its source."""


class GrammarHost(Protocol):
    """Where grammars are compiled: in this process, or in that of the engine. Thread-safe."""

    def size_bytes(self, source: str) -> int | None:
        """Memory of a grammar that is kept compiled; None where it is not known to be."""
        ...

    def verdict(self, source: str) -> Verdict:
        """What compiling the grammar says. Only for sources that are known to cost little."""
        ...

    def start(self, source: str, size_bytes: int) -> Constraint | Verdict:
        """A constraint at the grammar's start; the verdict where it does not compile or allows nothing."""
        ...

    def budgeted(self, constraint: Constraint | None, budget: ReasoningBudget) -> Constraint:
        """The constraint, which this host started, with a budget of reasoning; None is free text."""
        ...


class GrammarConstraint:
    """One sequence's place in a grammar. Implements the engine's Constraint.

    Args:
        matcher: at the start of the grammar, and owned by this object.
        tokenizer: of the model.
    """

    __slots__ = ("_matcher", "_tokenizer")

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer

    def mask(self) -> npt.NDArray[np.uint32]:
        """[ceil(V / 32)] bit per token allowed next. Raises InvalidRequest when a limit was passed."""
        bits: npt.NDArray[np.uint32] = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)
        if self._matcher.is_error():
            raise InvalidRequest(
                f"the output format became too complex to follow: {first_line(self._matcher.get_error())}",
                hint="simplify the schema, pattern or grammar",
                param="response_format",
            )
        return bits

    def accept(self, token: int) -> None:
        """Advances over a drawn token. Raises ValueError if the mask forbade it."""
        if not self._matcher.consume_token(token):
            raise ValueError(f"token {token} does not fit the output format")

    def finished(self) -> bool:
        """Whether only the end may follow."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def forced(self) -> Sequence[int]:
        """See ForcingConstraint. The last token is left out, since what follows may be one with it."""
        try:
            text = self._matcher.compute_ff_bytes().decode("utf-8")
        except UnicodeDecodeError:  # it ends within a character
            return ()
        return self._tokenizer.encode(text, special=False)[:-1] if text else ()

    def fork(self) -> GrammarConstraint:
        """A copy that goes its own way. Cheap: what both have in common stays shared."""
        return GrammarConstraint(self._matcher.deep_copy(), self._tokenizer)

    def complete(self) -> bool:
        """Whether the text so far is a whole answer."""
        accepting: bool = self._matcher.is_accepting()
        return accepting


@dataclass(frozen=True, slots=True)
class _Compiled:
    matcher: LLMatcher
    size_bytes: int


class Matchers:
    """A GrammarHost in this process.

    Args:
        tokenizer: of the model whose tokens are masked.
        end_tokens: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._cached_bytes = CACHED_BYTES
        self._lock = threading.Lock()
        self._ll: LLTokenizer | None = None
        self._cache: OrderedDict[str, _Compiled] = OrderedDict()

    def size_bytes(self, source: str) -> int | None:
        """See GrammarHost."""
        with self._lock:
            known = self._cache.get(source)
        return None if known is None else known.size_bytes

    def verdict(self, source: str) -> Verdict:
        """See GrammarHost."""
        return _verdict(self._matcher(source))

    def start(self, source: str, size_bytes: int) -> GrammarConstraint | Verdict:
        """See GrammarHost."""
        with self._lock:
            compiled = self._cache.get(source)
            if compiled is not None:
                self._cache.move_to_end(source)
        if compiled is None:
            matcher = self._matcher(source)
            if not (verdict := _verdict(matcher)).possible:
                return verdict
            compiled = _Compiled(matcher, max(size_bytes, BYTES_PER_CHAR * len(source)))
            self._keep(source, compiled)
        return GrammarConstraint(compiled.matcher.deep_copy(), self._tokenizer)

    def budgeted(self, constraint: Constraint | None, budget: ReasoningBudget) -> Constraint:
        """See GrammarHost."""
        return BudgetedConstraint(constraint, budget, self._tokenizer)

    def _matcher(self, source: str) -> LLMatcher:
        return LLMatcher(self._ll_tokenizer(), source, log_level=0, limits=parser_limits())

    def _keep(self, source: str, compiled: _Compiled) -> None:
        with self._lock:
            self._cache[source] = compiled
            held = sum(one.size_bytes for one in self._cache.values())
            while len(self._cache) > CACHED_GRAMMARS or (held > self._cached_bytes and len(self._cache) > 1):
                held -= self._cache.popitem(last=False)[1].size_bytes

    def _ll_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._ll is None:
                self._ll = LLTokenizer(
                    TokenizerWrapper(_Vocabulary(self._tokenizer, self._end_tokens)),
                    n_vocab=self._tokenizer.vocab_size,
                    eos_token=self._end_tokens,
                )
            return self._ll


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end_tokens: Sequence[int]) -> None:
        self.eos_token_id = end_tokens[0]
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted({*tokenizer.special_tokens.values(), *end_tokens})
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._tokenizer.encode(plain, special=False)


def _verdict(matcher: LLMatcher) -> Verdict:
    """What a fresh matcher says. It never raises; it keeps its errors."""
    possible = not matcher.is_error() and any(matcher.compute_bitmask())
    error = matcher.get_error() if matcher.is_error() else ""
    warnings = tuple(matcher.get_grammar_warnings())
    return Verdict(error=error, possible=possible and not error, warnings=warnings)


def first_line(message: str) -> str:
    """The message without positions and code frames, on one line."""
    text = message.split("\n   1 |")[0]
    return json.dumps(" ".join(text.split())[:300], ensure_ascii=False)[1:-1].replace('\\"', "'")
