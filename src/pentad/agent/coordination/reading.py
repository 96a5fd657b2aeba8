"""Reading what members answer: lines that say something by name, numbers, and answers to compare."""

from __future__ import annotations

import re
from collections.abc import Collection

from pentad.agent.planning.final_answer import canonical_answer, final_answer

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MARKS = re.compile(r"[*_`#]+")
_EDGE = " \t\r\n.,;:!\"'()[]"


def field(text: str, name: str) -> str:
    """What the last line that begins with `NAME:` says after it; "" where none does.

    Case and the marks of Markdown do not matter, since models vary both.
    """
    found = ""
    for line in text.splitlines():
        key, colon, value = _MARKS.sub("", line).strip(" \t-").partition(":")
        if colon and key.strip().casefold() == name.casefold():
            found = value.strip()
    return found


def without(text: str, names: Collection[str]) -> str:
    """The text without the lines that `field` reads under these names."""
    kept = [line for line in text.splitlines() if not any(_says(line, name) for name in names)]
    return "\n".join(kept).strip()


def _says(line: str, name: str) -> bool:
    key, colon, _ = _MARKS.sub("", line).strip(" \t-").partition(":")
    return bool(colon) and key.strip().casefold() == name.casefold()


def share(text: str, otherwise: float) -> float:
    """The first number of a text as a share, 0 to 1: `0.8`, `80%`; `otherwise` where there is none."""
    found = _NUMBER.search(text)
    if found is None:
        return otherwise
    value = float(found[0])
    if text[found.end() :].lstrip().startswith("%"):
        value /= 100
    return min(1.0, max(0.0, value))


def numbered(text: str) -> dict[int, str]:
    """What lines that begin with a number say, by that number: `2: 0.7`, `3) yes`."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"[\s*\-\[(]*(\d{1,4})[\])]?\s*[:=.)\-]\s*(.+)", line)
        if match:
            found[int(match[1])] = match[2].strip()
    return found


def plain(text: str) -> str:
    """A text by its words alone: without case, marks at the edges, and how it is spaced."""
    return " ".join(_MARKS.sub("", text).casefold().split()).strip(_EDGE)


def normal(text: str) -> str:
    """The form in which two answers are compared: what stands after `answer:`, or the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    return canonical_answer(final_answer(text) or (lines[-1] if lines else ""))
