"""Harmony: a turn as messages in channels, of which `analysis` is the reasoning; as gpt-oss writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pentad.model.lark import Lark
from pentad.model.reasoning.base import TEXT, ReasoningFormat
from pentad.model.toolcalls.parser import overlap

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
_RECIPIENT: Final = re.compile(r"to=(functions\.\S+?)(?=\s|<|$)")
ANALYSIS = f"{CHANNEL}analysis{MESSAGE}"
FINAL = f"{CHANNEL}final{MESSAGE}"


class HarmonySplitter:
    """Reads messages: those in the channel `analysis` are reasoning, those to a function stay as calls.

    Headers and ends of all others are taken out, so the answer is their text. Implements Splitter.

    Args:
        format: not looked at.
        opened: whether the prompt already ended with the header of a message of reasoning.
    """

    def __init__(self, format: ReasoningFormat, opened: bool) -> None:
        del format
        self._header: str | None = None if opened else ""
        """What has come of a header; None inside a message."""
        self._kind = "reasoning" if opened else "text"
        self._held = ""

    @property
    def thinking(self) -> bool:
        """See Splitter."""
        return self._header is None and self._kind == "reasoning"

    @property
    def over(self) -> bool:
        """See Splitter. Further messages can always come."""
        return False

    def feed(self, text: str) -> tuple[str, str]:
        """See Splitter."""
        whole, self._held = self._held + text, ""
        said = {"reasoning": "", "text": "", "call": ""}
        answer = ""
        while whole:
            if self._header is not None:
                head, whole = self._read_header(whole)
                answer += head
                continue
            piece, whole = self._read_body(whole)
            said[self._kind] += piece
            if self._kind != "reasoning":
                answer += piece
        return said["reasoning"], answer

    def finish(self) -> tuple[str, str]:
        """See Splitter. A header that never ended is text: nothing gets lost."""
        held, header = self._held, self._header
        self._held, self._header = "", None
        if header:
            return "", "" if header in (START, CHANNEL) or header.startswith(START) else header + held
        return (held, "") if self._kind == "reasoning" else ("", held)

    def _read_header(self, whole: str) -> tuple[str, str]:
        """Reads on in a header: what of it belongs to the answer, and what is left to read."""
        header = (self._header or "") + whole
        marks = (START, CHANNEL)
        if not any(header.startswith(mark) or mark.startswith(header) for mark in marks):
            self._header, self._kind = None, "text"
            return "", header
        at = header.find(MESSAGE)
        if at < 0:
            self._header = header
            return "", ""
        self._header, head = None, header[:at]
        if found := _RECIPIENT.search(head):
            self._kind = "call"
            return f"{CHANNEL}commentary to={found[1]} <|constrain|>json{MESSAGE}", header[
                at + len(MESSAGE) :
            ]
        self._kind = "reasoning" if head.partition(CHANNEL)[2].strip().startswith("analysis") else "text"
        return "", header[at + len(MESSAGE) :]

    def _read_body(self, whole: str) -> tuple[str, str]:
        """Reads on in a message up to what ends it."""
        ends = [(at, mark) for mark in (END, START, CHANNEL) if (at := whole.find(mark)) >= 0]
        if not ends:
            keep = max(overlap(whole, mark) for mark in (END, START, CHANNEL))
            self._held = whole[len(whole) - keep :]
            return whole[: len(whole) - keep], ""
        at, mark = min(ends)
        self._header = ""
        return whole[:at], whole[at + len(END) :] if mark == END else whole[at:]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmonyFormat(ReasoningFormat):
    """Messages in channels. An answer needs the header of the channel `final`."""

    def prefix(self, lark: Lark, *, opened: bool) -> str:
        thought = lark.until(TEXT, END)
        again = f'{lark.literal(START)} "assistant"'
        rest = f"({lark.literal(ANALYSIS)} {thought} {again})*"
        return f"{thought} {again} {rest}" if opened else rest


HARMONY = HarmonyFormat(
    name="harmony",
    opening=ANALYSIS,
    closing=END,
    after=f"{START}assistant",
    final=FINAL,
    marks=(CHANNEL, MESSAGE, "analysis"),
    splitter=HarmonySplitter,
    messages=True,
    texts=(START, CHANNEL, MESSAGE, END, "<|constrain|>", "<|call|>"),
)
