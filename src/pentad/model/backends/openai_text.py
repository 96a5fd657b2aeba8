"""Text of a remote endpoint, made valid Unicode before anything keeps it."""

from __future__ import annotations

import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def cleaned(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class TextCleaner:
    """Cleans one stream of text, whose pieces may split a surrogate pair."""

    def __init__(self) -> None:
        self._pending = ""

    def push(self, text: str) -> str:
        """The valid text that is certain by now."""
        text = self._pending + text
        self._pending = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._pending = text[:-1], text[-1]
        return cleaned(text)

    def flush(self) -> str:
        """U+FFFD for half a pair that never was completed, else nothing."""
        pending, self._pending = self._pending, ""
        return cleaned(pending)


def parts(content: Any) -> list[tuple[str, bool]]:
    """A content field as (text, reasoning) pieces: a string, a list of parts, or nothing.

    Raises ValueError for anything else.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [(content, False)]
    if not isinstance(content, list):
        raise ValueError(f"content is a {type(content).__name__}")
    found: list[tuple[str, bool]] = []
    for part in content:
        if isinstance(part, str):
            found.append((part, False))
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "output_text", "refusal"):
            found.append((str(part.get("text") or part.get("refusal") or ""), False))
        elif kind in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text") or part.get("content")
            found += [(text, True) for text, _ in parts(inner)]
        else:
            raise ValueError(f"content holds a part of type {str(kind)[:40]!r}")
    return found
