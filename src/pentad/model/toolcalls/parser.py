"""CallParser: generated text in, text and tool calls out, the same however the text was cut."""

from __future__ import annotations

import hashlib
from enum import Enum, auto

from pentad.execution.backend import TextDelta, ToolCallDelta
from pentad.model.toolcalls.base import CallReader, Schemas, ToolFormat
from pentad.model.toolcalls.scanner import SPACES, WHITESPACE, CallScanner

ID_CHARS = 24


def call_id(request_id: str, choice: int, index: int) -> str:
    """The id of a call: the same request replayed gives the same id."""
    digest = hashlib.sha256(f"{request_id}\0{choice}\0{index}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"call_{digest[:ID_CHARS]}"


class _In(Enum):
    START = auto()
    """At the beginning, where the answer may turn out to be a call without an opening mark."""
    TEXT = auto()
    GAP = auto()
    """Inside a section of calls, before, between or behind them."""
    CALL = auto()


class CallParser:
    """Splits one choice's text into answer text and tool calls, incrementally.

    Invariant: the deltas of any cutting of a text fold to the same answer, and no character is
    lost: what looked like a call and turned out to be none comes out as text. White space around
    calls belongs to their syntax and is dropped.

    Where the format has calls without an opening mark, an answer that begins with one is a call too. An
    answer in a format of its own may look like that, so there only the opening mark makes a call, and only
    where the answer begins. The grammar says the same of both.

    Args:
        format: how this model writes calls.
        schemas: the tools offered, each with the schema of its arguments.
        request_id: from which, with the choice and the index, ids are made.
        choice: which choice of the request this is.
        formatted: whether the answer has a format of its own.
    """

    def __init__(
        self,
        format: ToolFormat,
        schemas: Schemas,
        request_id: str,
        choice: int = 0,
        *,
        formatted: bool = False,
    ) -> None:
        self._format = format
        self._schemas = schemas
        self._names = frozenset(schemas)
        self._formatted = formatted
        self._request_id = request_id
        self._choice = choice
        self._in = _In.TEXT if formatted else _In.START
        self._bare = not formatted
        """Whether the section being read has no opening mark."""
        self._held = ""
        """In text: a possible beginning of what may not be passed on yet."""
        self._raw: list[str] = []
        """All characters since the last thing that was given out, to be able to take a call back."""
        self._spoken = False
        """Whether any text was given out."""
        self._gap = ""
        self._extra = 0
        """Closing braces that may still come, of an object that began with two."""
        self._section_calls = 0
        self._reader: CallReader | None = None
        self._announced = False
        self._sent_arguments = False
        self._out: list[TextDelta | ToolCallDelta] = []
        self.calls = 0
        """Calls begun so far."""

    def feed(self, text: str) -> list[TextDelta | ToolCallDelta]:
        """What the next piece of text adds."""
        self._read(text)
        if self._in is _In.CALL:
            self._send_arguments()
        return self._taken()

    def _read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._in is _In.TEXT:
                at = self._text(text, at)
                continue
            char = text[at]
            at += 1
            self._raw.append(char)
            if self._in is _In.START:
                self._start()
            elif self._in is _In.GAP:
                self._in_gap(char)
            else:
                self._in_call(char)

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        """What remains when the text has ended."""
        if self._in is _In.TEXT:
            if not (self.calls and not self._held.strip(SPACES)):
                self._say(self._held)
        elif self._in is _In.CALL and self._announced:
            self._send_arguments()
        elif self._in is not _In.GAP or not self._section_calls:
            self._say("".join(self._raw))
        self._held = ""
        return self._taken()

    def _taken(self) -> list[TextDelta | ToolCallDelta]:
        out, self._out = self._out, []
        return out

    def _say(self, text: str) -> None:
        if not text:
            return
        self._spoken = self._spoken or not text.isspace()
        last = self._out[-1] if self._out else None
        if isinstance(last, TextDelta):
            self._out[-1] = TextDelta(text=last.text + text, choice=self._choice)
        else:
            self._out.append(TextDelta(text=text, choice=self._choice))

    def _take_back(self) -> None:
        """What was read as a call is text after all; past its opening mark a call may begin."""
        raw, self._raw = "".join(self._raw), []
        at = 0
        if not self._bare and raw.lstrip(SPACES).startswith(self._format.opening):
            at = raw.index(self._format.opening) + len(self._format.opening)
        self._say(raw[:at])
        self._in, self._held = _In.TEXT, ""
        self._read(raw[at:])

    def _text(self, text: str, at: int) -> int:
        """Passes text on up to the next opening; holds back what may belong to one."""
        opening = self._format.opening
        whole = self._held + text[at:]
        found = whole.find(opening)
        if not opening or (self._formatted and not self._may_open(whole, found)):
            self._held = ""
            self._say(whole)
            return len(text)
        if found >= 0:
            said = whole[:found].rstrip(SPACES)
            self._say(said)
            self._held = ""
            self._raw = [whole[len(said) : found + len(opening)]]
            self._in, self._gap, self._section_calls, self._bare = _In.GAP, "", 0, False
            return len(text) - (len(whole) - found - len(opening))
        keep = overlap(whole, opening)
        while keep < len(whole) and whole[-keep - 1] in WHITESPACE:
            keep += 1
        self._say(whole[: len(whole) - keep])
        self._held = whole[len(whole) - keep :]
        return len(text)

    def _may_open(self, whole: str, found: int) -> bool:
        """Whether a formatted answer can still turn out to be a call."""
        before = whole[:found].strip(SPACES) if found >= 0 else ""
        begun = found >= 0 or self._format.opening.startswith(whole.strip(SPACES))
        return not self._spoken and not before and begun

    def _start(self) -> None:
        raw = "".join(self._raw)
        at = self._format.bare_start(raw, self._names)
        if at is not None and at < 0:
            self._take_back()
        elif at is not None:
            self._open_call(raw[at:])

    def _in_gap(self, char: str) -> None:
        format = self._format
        closing = format.bare_closing if self._bare else format.closing
        skips = format.bare_skips if self._bare else format.skips
        if not self._gap and (char in WHITESPACE or char in skips):
            return
        if not self._gap and char == "}" and self._extra:
            self._extra -= 1
            return
        self._gap += char
        if closing and closing == self._gap:
            self._close_section()
        elif format.begin and self._gap == format.begin:
            self._open_call("")
        elif closing.startswith(self._gap) or format.begin.startswith(self._gap):
            return
        elif format.begin or (self._section_calls and format.alone):
            self._take_back()
        else:
            self._open_call(self._gap)

    def _close_section(self) -> None:
        if self._section_calls:
            self._raw = []
            self._in, self._held = _In.TEXT, ""
        else:
            self._take_back()

    def _open_call(self, text: str) -> None:
        """Begins to read a call, of which that text was read already."""
        self._reader = self._format.reader(self._schemas)
        self._announced = self._sent_arguments = False
        self._in, self._gap = _In.CALL, ""
        if text:
            raw = "".join(self._raw)
            self._raw = [raw[: len(raw) - len(text)]]
            self._read(text)

    def _in_call(self, char: str) -> None:
        reader = self._reader
        assert reader is not None
        reader.feed(char)
        if self._bare and not self._announced and isinstance(reader, CallScanner) and reader.unlike_call:
            self._take_back()
            return
        if reader.name is not None and not self._announced and not reader.broken:
            self._announce(reader.name)
        if reader.broken:
            self._break_off()
        elif reader.done and not self._announced:
            self._take_back()
        elif reader.done:
            self._send_arguments()
            if not self._sent_arguments:
                self._out.append(ToolCallDelta(index=self.calls - 1, choice=self._choice, arguments="{}"))
            self._end_call()

    def _announce(self, name: str) -> None:
        self._announced = True
        self.calls += 1
        self._section_calls += 1
        self._out.append(
            ToolCallDelta(
                index=self.calls - 1,
                choice=self._choice,
                id=call_id(self._request_id, self._choice, self.calls - 1),
                name=name,
            )
        )

    def _break_off(self) -> None:
        """Malformed: if the call was already announced it ends here, and the rest is text."""
        if self._announced:
            self._send_arguments()
            self._raw = self._raw[-1:]
        self._take_back()

    def _end_call(self) -> None:
        self._raw = []
        reader = self._reader
        self._extra = int(isinstance(reader, CallScanner) and (self._bare or reader.doubled))
        self._in, self._gap = _In.GAP, ""

    def _send_arguments(self) -> None:
        if not self._announced:
            return
        assert self._reader is not None
        fragment = self._reader.take()
        if fragment:
            self._sent_arguments = True
            self._out.append(ToolCallDelta(index=self.calls - 1, choice=self._choice, arguments=fragment))


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
