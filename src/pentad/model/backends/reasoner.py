"""Reasoner: where one model's reasoning stands in an answer, how long it may be, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.execution.request import Constraint
from pentad.model.backends.prefill import prefill_of
from pentad.model.constraints import ConstraintCompiler
from pentad.model.grammars import Lead
from pentad.model.reasoning import ReasoningFormat
from pentad.model.reasoning.base import Splitter
from pentad.model.reasoning.budget import ReasoningBudget
from pentad.model.reasoning.wishes import ReasoningWishes, wishes_of
from pentad.model.tokenizer import Tokenizer
from pentad.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoner:
    """Answers for one model; without a format, that there is no reasoning."""

    format: ReasoningFormat | None
    template: str
    """The source of the chat template."""
    tokenizer: Tokenizer

    @property
    def texts(self) -> tuple[str, ...]:
        """The marks that have to be seen in the text."""
        if self.format is None:
            return ()
        return (self.format.opening, self.format.closing, *self.format.texts)

    def wishes(self, request: Request) -> ReasoningWishes:
        """What the request wishes of the reasoning."""
        if self.format is None:
            return ReasoningWishes(options=request.template_options)
        return wishes_of(request, self.template)

    def inside(self, request: Request, end: str) -> bool:
        """Whether the answer begins inside the reasoning, where the prompt ends with this text."""
        if self.format is None:
            return False
        if prefill := prefill_of(request):
            return prefill.rfind(self.format.opening) > prefill.rfind(self.format.closing)
        return end.rstrip().endswith(self.format.opening.rstrip())

    def lead(self, request: Request, thinking: bool) -> Lead | None:
        """The reasoning that may stand in front of an answer with a grammar; None if there can be none.

        Args:
            request: as it came.
            thinking: whether the answer begins inside the reasoning.
        """
        if self.format is None or request.messages is None:
            return None
        if prefill_of(request):  # the grammar sees the answer from where the prefill begins
            return Lead(self.format, False) if thinking else None
        unwanted = self.wishes(request).budget_tokens == 0 and not self.format.messages
        return None if unwanted and not thinking else Lead(self.format, thinking)

    def reasons(self, request: Request, thinking: bool, *, led: bool) -> bool:
        """Whether an answer may begin with reasoning.

        Args:
            request: as it came.
            thinking: whether the answer begins inside the reasoning.
            led: whether the answer's grammar, if it has one, lets reasoning stand in front.
        """
        possible = self.format is not None and request.messages is not None
        return possible and (thinking or (led and not prefill_of(request)))

    def limited(
        self, first: Constraint | None, tokens: int, thinking: bool, compiler: ConstraintCompiler
    ) -> Constraint:
        """The constraint with an end of the reasoning after so many tokens."""
        format = self.format
        assert format is not None
        budget = ReasoningBudget(
            tokens=tokens,
            opening=b"" if thinking else format.opening.rstrip().encode(),
            closing=format.closing.encode(),
            forced=tuple(self.tokenizer.encode(format.closing + format.after, special=True)),
        )
        return compiler.budgeted(first, budget)

    def splitter(self, thinking: bool) -> Splitter:
        """A fresh splitter for one choice."""
        assert self.format is not None
        return self.format.splitter(self.format, thinking)
