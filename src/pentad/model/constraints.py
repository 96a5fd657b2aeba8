"""Constraints: grammars compiled by llguidance into masks over one model's tokens."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from pentad.errors import InvalidRequest, PentadError
from pentad.model.grammar_checker import GrammarChecker, Verdict, shared_checker
from pentad.model.grammar_worker import parser_limits
from pentad.model.grammars import Part, answer_parts, arguments_part, call_parts, offered_by, source
from pentad.model.schemas import GrammarLimits, harmless
from pentad.model.tokenizer import Tokenizer
from pentad.model.tool_schemas import ANY_OBJECT, ToolSchemas
from pentad.model.toolcalls.base import ToolFormat
from pentad.types import OutputFormat, ToolChoice, ToolSpec

COMPILE_S = 1.0
CACHED_GRAMMARS = 64
CACHED_BYTES = 128 << 20
"""Compiled grammars that are kept, by number and by the memory that they take."""
REFUSED_GRAMMARS = 1_024
"""Refused grammars that are remembered, so that asking again costs nothing."""
BYTES_PER_CHAR = 64
"""Memory of a compiled grammar at least, per character of its source."""


class GrammarConstraint:
    """One sequence's place in a grammar. Implements the engine's Constraint.

    Args:
        matcher: at the start of the grammar, and owned by this object.
    """

    __slots__ = ("_matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> npt.NDArray[np.uint32]:
        """[ceil(V / 32)] bit per token allowed next. Raises InvalidRequest when a limit was passed."""
        bits: npt.NDArray[np.uint32] = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)
        if self._matcher.is_error():
            raise InvalidRequest(
                f"the output format became too complex to follow: {_first_line(self._matcher.get_error())}",
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
    size_bytes: int


class ConstraintCompiler:
    """Makes constraints for one tokenizer. Thread-safe; compiled grammars are kept and copied.

    Args:
        tokenizer: of the model whose tokens are masked.
        end_tokens: tokens that end an answer.
        limits: what requests may ask.
        compile_s: CPU time that one compilation may take.
        checker: compiles what may be costly in a process of its own first; None takes the server's.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_tokens: Iterable[int],
        *,
        limits: GrammarLimits | None = None,
        compile_s: float = COMPILE_S,
        checker: GrammarChecker | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._limits = limits or GrammarLimits()
        self._compile_s = compile_s
        self._checker = checker or shared_checker(compile_s)
        self._cached_bytes = CACHED_BYTES
        self._schemas = ToolSchemas(self._limits, self._check_arguments)
        self._lock = threading.Lock()
        self._ll: LLTokenizer | None = None
        self._cache: OrderedDict[str, _Compiled] = OrderedDict()
        self._refused: OrderedDict[str, PentadError] = OrderedDict()

    def for_answer(self, format: OutputFormat) -> GrammarConstraint | None:
        """A constraint to the output format; None for free text.

        Raises:
            InvalidRequest: the format is malformed, over a limit, or uses what cannot be enforced;
                the message names the keyword.
        """
        parts = answer_parts(format, self._limits)
        if not parts:
            return None
        part, size_bytes = self._possible(parts)
        return self._start([part], "response_format", size_bytes)

    def for_calls(
        self, format: ToolFormat, tools: Sequence[ToolSpec], choice: ToolChoice, answer: OutputFormat
    ) -> tuple[GrammarConstraint, tuple[str, ...]]:
        """A constraint for a turn with tools, and a sentence for each tool that it leaves partly unchecked.

        Tool schemas come from third parties, so what of one cannot be enforced refuses neither the tool nor
        the request: the call still parses, and whoever runs the tool checks its arguments.

        Raises:
            InvalidRequest: too many tools, the named one is not there, or the answer's format is at fault.
        """
        offered = offered_by(tools, choice, self._limits)
        forms = answer_parts(answer, self._limits)
        part, size_bytes = self._possible(forms) if forms and choice.mode == "auto" else (None, 0)
        names, special = [tool.name for tool in offered], self._tokenizer.special_tokens
        followed, notes = self._schemas.follow(offered, self._compile_s)
        schemas = [one.schema for one in followed]
        size_bytes += sum(one.size_bytes for one in followed)
        try:
            parts = call_parts(format, names, schemas, choice, part, special)
            return self._start(parts, "tools", size_bytes), notes
        except InvalidRequest as error:  # each compiles, all together do not
            parts = call_parts(format, names, [ANY_OBJECT] * len(names), choice, part, special)
            note = f"all tools leave their arguments unchecked: {error.message}"
            return self._start(parts, "tools", size_bytes), (*notes, note)

    def _possible(self, parts: Sequence[Part]) -> tuple[Part, int]:
        """The first that compiles and allows any text, and its memory where that was measured.

        Raises InvalidRequest where none does.
        """
        refusal: PentadError | None = None
        for part in parts:
            key = source([part])
            with self._lock:
                refusal = self._refused.get(key)
                if refusal is None and (known := self._cache.get(key)) is not None:
                    return part, known.size_bytes
            verdict = self._check(part) if refusal is None else Verdict(possible=False)
            if verdict.possible:
                return part, verdict.size_bytes
            refusal = refusal or _refusal(verdict, "response_format")
            with self._lock:
                self._refused[key] = refusal
                while len(self._refused) > REFUSED_GRAMMARS:
                    self._refused.popitem(last=False)
        assert refusal is not None
        raise type(refusal)(refusal.message, hint=refusal.hint, param=refusal.param)

    def _check(self, part: Part) -> Verdict:
        """What compiling the part says; where it may cost much, a process of its own finds out."""
        schema = part.get("json_schema")
        if schema is not None and harmless(schema, self._limits):
            return self._try(part)
        special = self._tokenizer.special_tokens
        return self._checker.check(source([part]), self._tokenizer.vocab_size, special)

    def _check_arguments(self, schema: Mapping[str, Any]) -> Verdict:
        return self._check(arguments_part("arguments", schema))

    def _try(self, part: Part) -> Verdict:
        return _verdict(self._matcher(source([part])))

    def _matcher(self, grammar: str) -> LLMatcher:
        return LLMatcher(self._ll_tokenizer(), grammar, log_level=0, limits=parser_limits())

    def _start(self, parts: Sequence[Part], param: str, size_bytes: int) -> GrammarConstraint:
        """A constraint at the start of a grammar whose parts were checked and have that size together."""
        grammar = source(parts)
        with self._lock:
            compiled = self._cache.get(grammar)
            if compiled is not None:
                self._cache.move_to_end(grammar)
        if compiled is None:
            matcher = self._matcher(grammar)
            if not (verdict := _verdict(matcher)).possible:
                raise _refusal(verdict, param)
            compiled = _Compiled(matcher, max(size_bytes, BYTES_PER_CHAR * len(grammar)))
            self._keep(grammar, compiled)
        return GrammarConstraint(compiled.matcher.deep_copy())

    def _keep(self, grammar: str, compiled: _Compiled) -> None:
        with self._lock:
            self._cache[grammar] = compiled
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


def _refusal(verdict: Verdict, param: str) -> InvalidRequest:
    if verdict.stopped:
        return InvalidRequest(f"{param} {verdict.error}", hint="simplify it", param=param)
    if verdict.error and "NoExtension" not in verdict.error:
        return InvalidRequest(
            f"{param} cannot be enforced: {_first_line(verdict.error)}",
            hint="leave that out or write it differently",
            param=param,
        )
    return InvalidRequest(f"{param} allows no text at all", hint="loosen it", param=param)


def _first_line(message: str) -> str:
    """The message without positions and code frames, on one line."""
    text = message.split("\n   1 |")[0]
    return json.dumps(" ".join(text.split())[:300], ensure_ascii=False)[1:-1].replace('\\"', "'")
