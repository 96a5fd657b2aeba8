"""Guides: constraints and watchers as bytes, and what makes them in the engine's process.

    gateway's process                          engine's process
    GuidedGrammars.start() -> GrammarGuide     GuideMaker.answer()      compiles, and keeps it compiled
    open_choices: guide.data() -- request -->  GuideMaker.constraint()  a copy of what is kept
    TextStream.guide()                         GuideMaker.watcher()

Grammars are compiled where their masks are computed, in each step, by the engine's thread. Text is
made in the gateway's process; only where a stop string has to end a sequence, in the engine's as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn
from pentad.execution.request import Constraint
from pentad.model.backends.text import TextStream
from pentad.model.grammar_checker import Verdict
from pentad.model.matchers import Matchers
from pentad.model.reasoning.budget import ReasoningBudget
from pentad.model.tokenizer import Tokenizer

_ELSEWHERE: Final = "this grammar is followed in the engine's process"


class _Compile(msgspec.Struct, frozen=True, array_like=True):
    """Asks for a grammar to be compiled; with `keep`, and begun with `prefix`."""

    source: str
    size_bytes: int
    keep: bool
    prefix: tuple[int, ...] = ()


class _Compiled(msgspec.Struct, frozen=True, array_like=True):
    verdict: Verdict
    fits: bool = True
    """Whether an answer may begin with the prefix."""


class _Grammar(msgspec.Struct, frozen=True, array_like=True):
    source: str
    """Empty for free text."""
    size_bytes: int
    prefix: tuple[int, ...]
    budget: ReasoningBudget | None = None


class _Stops(msgspec.Struct, frozen=True, array_like=True):
    stops: tuple[str, ...]
    hidden: tuple[int, ...]
    spelled: tuple[int, ...]
    min_tokens: int


Ask = Callable[[bytes], bytes]
_encode = msgspec.msgpack.encode
_decode: Callable[..., Any] = msgspec.msgpack.decode


@dataclass(frozen=True, slots=True)
class GrammarGuide:
    """A place in a grammar that is compiled elsewhere; stands for a Constraint until it has got there."""

    source: str
    size_bytes: int
    prefix: tuple[int, ...]
    _ask: Ask
    budget: ReasoningBudget | None = None

    def data(self) -> bytes:
        """What GuideMaker makes the constraint of."""
        return _encode(_Grammar(self.source, self.size_bytes, self.prefix, self.budget))

    def begun(self, tokens: Sequence[int]) -> GrammarGuide:
        """The place behind the beginning of an answer. Raises ValueError where no answer begins so."""
        prefix = (*self.prefix, *tokens)
        if not self.source:
            return replace(self, prefix=prefix)
        answer = self._ask(_encode(_Compile(self.source, self.size_bytes, True, prefix)))
        if not _decode(answer, type=_Compiled).fits:
            raise ValueError("the beginning does not fit the output format")
        return replace(self, prefix=prefix)

    def fork(self) -> GrammarGuide:
        """Itself: nothing of it changes."""
        return self

    def mask(self) -> npt.NDArray[np.uint32]:
        raise AssertionError(_ELSEWHERE)

    def accept(self, token: int) -> None:
        raise AssertionError(f"{_ELSEWHERE}, and so is token {token}")

    def finished(self) -> bool:
        raise AssertionError(_ELSEWHERE)


class GuidedGrammars:
    """A GrammarHost in another process.

    Args:
        ask: has GuideMaker answer there. Blocks.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def size_bytes(self, source: str) -> int | None:
        """See GrammarHost: what is kept is known there alone."""
        del source
        return None

    def verdict(self, source: str) -> Verdict:
        """See GrammarHost."""
        return self._compiled(_Compile(source, 0, False)).verdict

    def start(self, source: str, size_bytes: int) -> GrammarGuide | Verdict:
        """See GrammarHost."""
        verdict = self._compiled(_Compile(source, size_bytes, True)).verdict
        return GrammarGuide(source, size_bytes, (), self._ask) if verdict.possible else verdict

    def budgeted(self, constraint: Constraint | None, budget: ReasoningBudget) -> GrammarGuide:
        """See GrammarHost."""
        if constraint is None:
            return GrammarGuide("", 0, (), self._ask, budget)
        assert isinstance(constraint, GrammarGuide)
        return replace(constraint, budget=budget)

    def _compiled(self, question: _Compile) -> _Compiled:
        found: _Compiled = _decode(self._ask(_encode(question)), type=_Compiled)
        return found


class GuideMaker:
    """Makes what guides describe, next to the engine. Implements the server's GuideHost.

    Args:
        tokenizer: of the model.
        end_tokens: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._matchers = Matchers(tokenizer, end_tokens or {0})

    def constraint(self, guide: bytes, generated: tuple[int, ...]) -> Constraint:
        """See GuideHost. Raises InvalidRequest where it does not compile, or forbids the beginning."""
        grammar: _Grammar = _decode(guide, type=_Grammar)
        started = self._matchers.start(grammar.source, grammar.size_bytes) if grammar.source else None
        if isinstance(started, Verdict):
            raise InvalidRequest("the output format cannot be enforced", param="response_format")
        made: Constraint | None = started
        if grammar.budget is not None:
            made = self._matchers.budgeted(started, grammar.budget)
        assert made is not None
        if not _begun(made, (*grammar.prefix, *generated)):
            raise InvalidRequest("the answer so far does not fit the output format", param="response_format")
        return made

    def watcher(self, guide: bytes, generated: tuple[int, ...]) -> TextStream:
        """See GuideHost."""
        made: _Stops = _decode(guide, type=_Stops)
        stream = TextStream(
            self._tokenizer,
            stops=made.stops,
            hidden=frozenset(made.hidden),
            spelled=frozenset(made.spelled),
            min_tokens=made.min_tokens,
        )
        for token in generated:
            stream.accept(Drawn(token=token))
        return stream

    def answer(self, question: bytes) -> bytes:
        """See GuideHost."""
        asked: _Compile = _decode(question, type=_Compile)
        if not asked.keep:
            return _encode(_Compiled(self._matchers.verdict(asked.source)))
        made = self._matchers.start(asked.source, asked.size_bytes)
        if isinstance(made, Verdict):
            return _encode(_Compiled(made))
        return _encode(_Compiled(Verdict(), _begun(made, asked.prefix)))


def watcher_guide(
    stops: Sequence[str], hidden: Iterable[int], spelled: Iterable[int], min_tokens: int
) -> bytes:
    """What GuideMaker makes a watcher of; the arguments are TextStream's."""
    return _encode(_Stops(tuple(stops), tuple(hidden), tuple(spelled), min_tokens))


def _begun(constraint: Constraint, tokens: Sequence[int]) -> bool:
    try:
        for token in tokens:
            constraint.accept(token)
    except ValueError:
        return False
    return True
