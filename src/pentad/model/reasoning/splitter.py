"""BlockSplitter: reasoning between two marks at the beginning of an answer."""

from __future__ import annotations

from enum import Enum, auto

from pentad.model.reasoning.base import ReasoningFormat
from pentad.model.toolcalls.parser import overlap


class _In(Enum):
    START = auto()
    THINKING = auto()
    BEHIND = auto()
    """After the reasoning, before the first character of the answer."""
    TEXT = auto()


class BlockSplitter:
    """Takes what stands between the format's marks apart from the answer. Implements Splitter.

    White space around the reasoning belongs to its marks. An opening mark that the prompt already ended
    with may be written again.

    Args:
        format: whose marks to look for.
        opened: whether the prompt already ended with the opening mark.
    """

    def __init__(self, format: ReasoningFormat, opened: bool) -> None:
        self._opening, self._closing = format.opening.rstrip(), format.closing
        self._in = _In.THINKING if opened else _In.START
        self._held = ""
        self._any = False
        """Whether any reasoning was given out."""

    @property
    def thinking(self) -> bool:
        """See Splitter."""
        return self._in is _In.THINKING

    @property
    def over(self) -> bool:
        """See Splitter."""
        return self._in is _In.TEXT

    def feed(self, text: str) -> tuple[str, str]:
        """See Splitter."""
        whole, self._held = self._held + text, ""
        reasoning = ""
        if self._in is _In.START:
            bare = whole.lstrip()
            if bare.startswith(self._opening):
                self._in, whole = _In.THINKING, bare[len(self._opening) :]
            elif self._opening.startswith(bare):
                self._held = whole
                return "", ""
            else:
                self._in = _In.TEXT
        if self._in is _In.THINKING:
            reasoning, whole = self._think(whole)
        if self._in is _In.BEHIND:
            whole = whole.lstrip()
            if not whole:
                return reasoning, ""
            self._in = _In.TEXT
        return reasoning, whole

    def finish(self) -> tuple[str, str]:
        """See Splitter."""
        held, self._held = self._held, ""
        return (held, "") if self._in is _In.THINKING else ("", held)

    def _think(self, whole: str) -> tuple[str, str]:
        at = whole.find(self._closing)
        if at >= 0:
            said, rest = whole[:at].rstrip(), whole[at + len(self._closing) :]
            self._in = _In.BEHIND
        else:
            keep = overlap(whole, self._closing)
            said, rest = whole[: len(whole) - keep].rstrip(), ""
            self._held = whole[len(said) :]
        if not self._any:
            said = said.lstrip()
            self._any = bool(said)
        return said, rest
