"""ReasoningFormat: how one kind of model marks its reasoning, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pentad.model.lark import Lark, escaped

SPACE = r"[ \t\r\n]*"
TEXT = r"/(.|\n)*/"


class Splitter(Protocol):
    """Takes the reasoning of one choice apart from its answer, the same however the text is cut."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is reasoning."""
        ...

    @property
    def over(self) -> bool:
        """Whether no reasoning can come any more."""
        ...

    def feed(self, text: str) -> tuple[str, str]:
        """What the next piece adds: (reasoning, answer)."""
        ...

    def finish(self) -> tuple[str, str]:
        """What remains when the text has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFormat:
    """Reasoning between two marks at the beginning of an answer."""

    name: str
    opening: str
    closing: str
    marks: tuple[str, ...]
    """A chat template that holds all of these shows that the model was trained on this format."""
    splitter: Callable[[ReasoningFormat, bool], Splitter]
    """Makes a fresh splitter; the flag says whether the prompt ends inside the reasoning."""
    after: str = ""
    """What stands behind the closing mark where it is forced, so that the answer begins as it was trained."""
    final: str = ""
    """What stands in front of an answer's text."""
    messages: bool = False
    """Whether every part of a turn is a message with a header of its own, as in Harmony."""
    texts: tuple[str, ...] = field(default=())
    """Further marks that the splitter has to see."""

    def prefix(self, lark: Lark, *, opened: bool) -> str:
        """The reasoning as it stands in a grammar in front of an answer; optional unless opened."""
        thought = lark.until(TEXT, self.closing)
        if opened:
            return f"{thought} /{SPACE}/"
        if lark.has_token(self.opening):
            start = f"/{SPACE}/ {lark.literal(self.opening)}"
        else:
            start = f"/{SPACE}{escaped(self.opening)}/"
        return f"({start} {thought} /{SPACE}/)?"

    def excluded(self, lark: Lark) -> str:
        """A regular expression for beginnings of free text that are reasoning; empty where no text can be."""
        return "" if lark.has_token(self.opening) else SPACE + escaped(self.opening)
