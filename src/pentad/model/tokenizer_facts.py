"""TokenizerFacts: what a program must know to format prompts for a model itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """The vocabulary's size, the tokens around a text, and the chat template's Jinja source."""

    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    chat_template: str | None
