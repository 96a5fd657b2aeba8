"""Constraints: grammars compiled by llguidance into masks over one model's tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pentad.errors import InvalidRequest, PentadError
from pentad.execution.request import Constraint
from pentad.model.grammar_checker import GrammarChecker, Verdict, shared_checker
from pentad.model.grammars import Lead, answer_parts, call_parts, led_parts, offered_by, source
from pentad.model.lark import Part, schema_part
from pentad.model.matchers import GrammarHost, Matchers, first_line
from pentad.model.reasoning.budget import ReasoningBudget
from pentad.model.schemas import GrammarLimits, harmless
from pentad.model.tokenizer import Tokenizer
from pentad.model.tool_schemas import ANY_OBJECT, ToolSchemas
from pentad.model.toolcalls.base import ToolFormat
from pentad.types import OutputFormat, ToolChoice, ToolSpec

COMPILE_S = 1.0
REFUSED_GRAMMARS = 1_024
"""Refused grammars that are remembered, so that asking again costs nothing."""


class ConstraintCompiler:
    """Makes constraints for one tokenizer. Thread-safe; compiled grammars are kept and copied.

    Args:
        tokenizer: of the model whose tokens are masked.
        end_tokens: tokens that end an answer.
        limits: what requests may ask.
        compile_s: CPU time that one compilation may take.
        checker: compiles what may be costly in a process of its own first; None takes the server's.
        host: compiles what is used; None does it here.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_tokens: Iterable[int],
        *,
        limits: GrammarLimits | None = None,
        compile_s: float = COMPILE_S,
        checker: GrammarChecker | None = None,
        host: GrammarHost | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._host: GrammarHost = host or Matchers(tokenizer, end_tokens)
        self._limits = limits or GrammarLimits()
        self._compile_s = compile_s
        self._checker = checker or shared_checker(compile_s)
        self._schemas = ToolSchemas(self._limits, self._check_arguments)
        self._lock = threading.Lock()
        self._refused: OrderedDict[str, PentadError] = OrderedDict()

    def for_answer(self, format: OutputFormat, lead: Lead | None = None) -> Constraint | None:
        """A constraint to the output format, behind reasoning where there can be any; None for free text.

        Raises:
            InvalidRequest: the format is malformed, over a limit, or uses what cannot be enforced;
                the message names the keyword.
        """
        parts = answer_parts(format, self._limits)
        if not parts:
            return None
        part, size_bytes = self._possible(parts)
        if lead is None:
            return self._start([part], "response_format", size_bytes)
        led = led_parts(part, self._tokenizer.special_tokens, lead)
        return self._start(led, "response_format", size_bytes)

    def for_calls(
        self,
        format: ToolFormat,
        tools: Sequence[ToolSpec],
        choice: ToolChoice,
        answer: OutputFormat,
        lead: Lead | None = None,
    ) -> tuple[Constraint, tuple[str, ...]]:
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
            parts = call_parts(format, names, schemas, choice, part, special, lead)
            return self._start(parts, "tools", size_bytes), notes
        except InvalidRequest as error:  # each compiles, all together do not
            parts = call_parts(format, names, [ANY_OBJECT] * len(names), choice, part, special, lead)
            note = f"all tools leave their arguments unchecked: {error.message}"
            return self._start(parts, "tools", size_bytes), (*notes, note)

    def budgeted(self, constraint: Constraint | None, budget: ReasoningBudget) -> Constraint:
        """The constraint with a budget of reasoning; None is free text."""
        return self._host.budgeted(constraint, budget)

    def _possible(self, parts: Sequence[Part]) -> tuple[Part, int]:
        """The first that compiles and allows any text, and its memory where that was measured.

        Raises InvalidRequest where none does.
        """
        refusal: PentadError | None = None
        for part in parts:
            key = source([part])
            with self._lock:
                refusal = self._refused.get(key)
            if refusal is None and (known := self._host.size_bytes(key)) is not None:
                return part, known
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
        return self._check(schema_part("arguments", schema, lenient=True))

    def _try(self, part: Part) -> Verdict:
        return self._host.verdict(source([part]))

    def _start(self, parts: Sequence[Part], param: str, size_bytes: int) -> Constraint:
        """A constraint at the start of a grammar whose parts were checked and have that size together."""
        made = self._host.start(source(parts), size_bytes)
        if isinstance(made, Verdict):
            raise _refusal(made, param)
        return made


def _refusal(verdict: Verdict, param: str) -> InvalidRequest:
    if verdict.stopped:
        return InvalidRequest(f"{param} {verdict.error}", hint="simplify it", param=param)
    if verdict.error and "NoExtension" not in verdict.error:
        return InvalidRequest(
            f"{param} cannot be enforced: {first_line(verdict.error)}",
            hint="leave that out or write it differently",
            param=param,
        )
    return InvalidRequest(f"{param} allows no text at all", hint="loosen it", param=param)
