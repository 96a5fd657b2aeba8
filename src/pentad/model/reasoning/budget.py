"""A hard budget of reasoning: after so many tokens its end is the only thing that may follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from pentad.execution.request import Constraint
from pentad.model.tokenizer import Tokenizer


class ReasoningBudget(msgspec.Struct, frozen=True, array_like=True):
    """What a sequence may spend on reasoning; travels to where its tokens are drawn."""

    tokens: int
    """Tokens of reasoning, after which its end is forced."""
    opening: bytes
    """What begins it; with an empty one it has begun."""
    closing: bytes
    """What ends it."""
    forced: tuple[int, ...]
    """The tokens that end it, and what stands behind them."""


@dataclass(slots=True)
class BudgetedConstraint:
    """A constraint within which reasoning ends on time. Implements the engine's Constraint.

        opening  r r r r r r  closing  answer
                 |<- tokens ->|

    The end is forced between two characters, never within one: at a place where the inner constraint
    allows it. Only reasoning at the beginning of an answer counts.

    Args:
        inner: what else holds; None for free text.
        budget: of this sequence.
        tokenizer: of the model.
    """

    inner: Constraint | None
    budget: ReasoningBudget
    tokenizer: Tokenizer
    _thinking: bool = False
    _over: bool = False
    _spent: int = 0
    _forced: int = 0
    """How many of the forced tokens have been drawn."""
    _tail: bytes = b""
    """The end of the text so far, in which a mark may have begun."""

    def __post_init__(self) -> None:
        self._thinking = self._thinking or not self.budget.opening

    def mask(self) -> npt.NDArray[np.uint32]:
        """See Constraint."""
        words = (self.tokenizer.vocab_size + 31) // 32
        allowed = np.full(words, 0xFFFF_FFFF, np.uint32) if self.inner is None else self.inner.mask()
        if self._over or not self._is_due():
            return allowed
        token = self.budget.forced[self._forced]
        bit = np.uint32(1 << token % 32)
        if not self._forced and (not allowed[token // 32] & bit or self._within_character()):
            return allowed
        only = np.zeros(words, np.uint32)
        only[token // 32] = bit
        return only

    def accept(self, token: int) -> None:
        """See Constraint."""
        if self.inner is not None:
            self.inner.accept(token)
        if self._over:
            return
        due = self._is_due() and token == self.budget.forced[self._forced]
        self._forced = self._forced + 1 if due else 0
        text = self._tail + self.tokenizer.token_bytes(token)
        if not self._thinking:
            self._open(text)
            return
        self._spent += 1
        if self._forced == len(self.budget.forced) or (not self._forced and self.budget.closing in text):
            self._over = True
        self._tail = text[-max(len(self.budget.closing) - 1, 4) :]

    def finished(self) -> bool:
        """See Constraint."""
        return self.inner is not None and self.inner.finished()

    def fork(self) -> BudgetedConstraint:
        """See Constraint."""
        return replace(self, inner=None if self.inner is None else self.inner.fork())

    def _is_due(self) -> bool:
        return bool(self._forced) or (self._thinking and self._spent >= self.budget.tokens)

    def _open(self, text: bytes) -> None:
        """Looks whether the answer begins with reasoning."""
        said = text.lstrip(b" \t\r\n")
        if said.startswith(self.budget.opening):
            self._thinking, self._tail = True, b""
        elif self.budget.opening.startswith(said):
            self._tail = said
        else:
            self._over = True

    def _within_character(self) -> bool:
        """Whether the last character lacks bytes."""
        for size in range(1, min(4, len(self._tail) + 1)):
            byte = self._tail[-size]
            if byte >= 0xC0:
                return size < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
            if byte < 0x80:
                return False
        return False
