"""What a backend may do beside generating: its tokenizer and its template, where they are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.types import Request


@runtime_checkable
class TokenCodec(Protocol):
    """A backend whose tokenizer is here."""

    def tokenize(self, text: str, *, prefix: bool = False) -> list[int]:
        """Token ids of raw text; special-token text becomes the special token.

        With `prefix` behind the tokens that the model expects before every text, unless it starts so.
        """
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        ...

    def tokenizer_facts(self) -> TokenizerFacts:
        """What a program must know to format prompts itself."""
        ...


@runtime_checkable
class PromptRenderer(Protocol):
    """A backend that can show the text its model is given."""

    def prompt_text(self, request: Request) -> str:
        """The prompt with its control tokens spelled out; of a remote model, the body that is sent."""
        ...
