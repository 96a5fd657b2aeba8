"""A request as tokens and grammar, ready for whatever draws the answer."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.execution.backend import NoticeDelta
from pentad.execution.request import Constraint, EmbeddedSpan
from pentad.types import Decision, Request, Span, ToolSpec


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the answers of one request follow."""

    first: Constraint | None
    """At the start; None for free text."""
    notes: tuple[str, ...]
    """What it leaves unchecked, a sentence per tool."""
    started_s: float
    led: bool = False
    """Whether reasoning may stand in front of what they follow."""

    def for_choices(self, count: int) -> tuple[Constraint | None, ...]:
        """One constraint per choice: compiled once, each goes its own way from here."""
        if self.first is None:
            return (None,) * count
        return (self.first, *(self.first.fork() for _ in range(count - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as tokens, with everything resolved that it left open."""

    prompt: tuple[int, ...]
    source: tuple[int, ...] = ()
    """What an encoder reads; the prompt is then what its decoder starts from."""
    embedded: tuple[EmbeddedSpan, ...] = ()
    """Positions of the prompt whose input is of parts that are no text."""
    max_tokens: int
    seed: int
    tools: tuple[ToolSpec, ...]
    """Those offered; empty when calls are not wanted."""
    reasons: bool
    """Whether answers may begin with reasoning."""
    thinking: bool
    """Whether the prompt ends inside the reasoning."""
    reference: tuple[int, ...]
    """Tokens of the prediction."""
    constraints: tuple[Constraint | None, ...]
    """One per choice, each at its start."""
    spans: tuple[Span, ...]
    decisions: tuple[Decision, ...]

    @property
    def notices(self) -> list[NoticeDelta]:
        """What the caller is told before anything is computed."""
        return [NoticeDelta(text=one.notice) for one in self.decisions if one.notice is not None]


def offered(request: Request) -> tuple[ToolSpec, ...]:
    """The tools that the model is shown: none if it shall not call any."""
    return () if request.tool_choice.mode == "none" else request.tools
