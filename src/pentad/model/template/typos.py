"""Typos in published chat templates that teach a model to write what nobody reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Typo:
    """One mistake: how it looks in a template's source, and what was meant."""

    pattern: re.Pattern[str]
    meant: str | Callable[[re.Match[str]], str]
    says: str
    """What was mended, for the notice."""


TYPOS = (
    Typo(
        # In a text of the template: as an expression of the template's own it would be no syntax.
        re.compile(r"""\{\{(\\?["']name\\?["']\s*:[^{}]{1,200})\}\}"""),
        r"{\1}",
        'its example of a tool call had its braces doubled, {{"name": ...}}',
    ),
)
"""Qwen 2.5 1.5B Instruct's GGUF files teach the doubled braces; the same template elsewhere does not."""


def mended(source: str) -> tuple[str, tuple[str, ...]]:
    """The template without known typos, and a sentence for each kind that was mended."""
    notes = []
    for typo in TYPOS:
        source, found = typo.pattern.subn(typo.meant, source)
        if found:
            notes.append(typo.says)
    return source, tuple(notes)
