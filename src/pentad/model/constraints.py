"""Constraints: grammars compiled by llguidance into masks over one model's tokens."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from pentad.errors import BackendFailed, InvalidRequest
from pentad.execution.request import Constraint
from pentad.model.grammars import answer_part, call_parts, source
from pentad.model.schemas import GrammarLimits
from pentad.model.tokenizer import Tokenizer
from pentad.model.toolcalls.base import ToolFormat
from pentad.types import OutputFormat, ToolChoice, ToolSpec

COMPILE_S = 1.0
CACHED_GRAMMARS = 64


class GrammarConstraint:
    """One sequence's place in a grammar. Implements the engine's Constraint.

    Args:
        matcher: at the start of the grammar, and owned by this object.
    """

    __slots__ = ("_matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> npt.NDArray[np.uint32]:
        """[ceil(V / 32)] bit per token allowed next. Raises BackendFailed when a limit was passed."""
        bits: npt.NDArray[np.uint32] = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)
        if self._matcher.is_error():
            raise BackendFailed(
                f"the output format became too complex to follow: {_first_line(self._matcher.get_error())}",
                hint="simplify the schema, pattern or grammar",
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

    def fork(self) -> GrammarConstraint:
        """A copy that goes its own way. Cheap: what both have in common stays shared."""
        return GrammarConstraint(self._matcher.deep_copy())

    def complete(self) -> bool:
        """Whether the text so far is a whole answer."""
        accepting: bool = self._matcher.is_accepting()
        return accepting


@dataclass(frozen=True, slots=True)
class _Compiled:
    matcher: LLMatcher
    warnings: tuple[str, ...]


class ConstraintCompiler:
    """Makes constraints for one tokenizer. Thread-safe; compiled grammars are kept and copied.

    Args:
        tokenizer: of the model whose tokens are masked.
        end_tokens: tokens that end an answer.
        limits: what requests may ask.
        compile_s: how long one compilation may take.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_tokens: Iterable[int],
        *,
        limits: GrammarLimits | None = None,
        compile_s: float = COMPILE_S,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._limits = limits or GrammarLimits()
        self._compile_s = compile_s
        self._lock = threading.Lock()
        self._ll: LLTokenizer | None = None
        self._cache: OrderedDict[str, _Compiled] = OrderedDict()

    def for_answer(self, format: OutputFormat) -> Constraint | None:
        """A constraint to the output format; None for free text.

        Raises:
            InvalidRequest: the format is malformed, over a limit, or uses what cannot be enforced;
                the message names the keyword.
        """
        part = answer_part(format, self._limits)
        return None if part is None else self._start(source([part]), "response_format").constraint

    def for_calls(
        self, format: ToolFormat, tools: Sequence[ToolSpec], choice: ToolChoice, answer: OutputFormat
    ) -> tuple[Constraint, tuple[str, ...]]:
        """A constraint for a turn with tools, and which schema keywords it leaves unchecked.

        Tool schemas come from third parties, so a keyword that cannot be enforced does not refuse
        the tool: the call still parses, and whoever runs the tool checks its arguments.

        Raises:
            InvalidRequest: a schema is malformed or over a limit, or the named tool is not there.
        """
        part = answer_part(answer, self._limits)
        special = self._tokenizer.special_tokens
        parts = call_parts(format, tools, choice, part, special, self._limits)
        started = self._start(source(parts), "tools")
        return started.constraint, started.warnings

    def _start(self, grammar: str, param: str) -> _Started:
        with self._lock:
            compiled = self._cache.get(grammar)
            if compiled is not None:
                self._cache.move_to_end(grammar)
        if compiled is None:
            compiled = self._compile(grammar, param)
            with self._lock:
                self._cache[grammar] = compiled
                while len(self._cache) > CACHED_GRAMMARS:
                    self._cache.popitem(last=False)
        return _Started(GrammarConstraint(compiled.matcher.deep_copy()), compiled.warnings)

    def _compile(self, grammar: str, param: str) -> _Compiled:
        """Compiles on a thread of its own, since that is the only way to stop waiting for it.

        llguidance lets go of the interpreter lock meanwhile and bounds its own work.
        """
        tokenizer = self._ll_tokenizer()
        done: list[tuple[LLMatcher, bool]] = []

        def work() -> None:
            # LLMatcher never raises; it keeps its errors.
            matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_parser_limits())
            possible = not matcher.is_error() and any(matcher.compute_bitmask())
            done.append((matcher, possible and not matcher.is_error()))

        worker = threading.Thread(target=work, name="compile-grammar", daemon=True)
        worker.start()
        worker.join(self._compile_s)
        if not done:
            raise InvalidRequest(
                f"{param} takes more than {self._compile_s} s to compile", hint="simplify it", param=param
            )
        matcher, possible = done[0]
        if matcher.is_error() and "NoExtension" not in matcher.get_error():
            raise InvalidRequest(
                f"{param} cannot be enforced: {_first_line(matcher.get_error())}",
                hint="leave that out or write it differently",
                param=param,
            )
        if not possible:
            raise InvalidRequest(f"{param} allows no text at all", hint="loosen it", param=param)
        return _Compiled(matcher, tuple(_first_line(w) for w in matcher.get_grammar_warnings()))

    def _ll_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._ll is None:
                self._ll = LLTokenizer(
                    TokenizerWrapper(_Vocabulary(self._tokenizer, self._end_tokens)),
                    n_vocab=self._tokenizer.vocab_size,
                    eos_token=self._end_tokens,
                )
            return self._ll


@dataclass(frozen=True, slots=True)
class _Started:
    constraint: GrammarConstraint
    warnings: tuple[str, ...]


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


def _parser_limits() -> LLParserLimits:
    return LLParserLimits(verbose_errors=False)


def _first_line(message: str) -> str:
    """The message without positions and code frames, on one line."""
    text = message.split("\n   1 |")[0]
    return json.dumps(" ".join(text.split())[:300], ensure_ascii=False)[1:-1].replace('\\"', "'")
