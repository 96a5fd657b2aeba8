"""Tool calls as a list of calls in Python between control tokens, as Llama 4 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.pythonic import Pythonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama4Pythonic(Pythonic):
    """`<|python_start|>`, the list, `<|python_end|>`; the tokens may be missing.

    Source: the chat template of Llama 4.
    """

    name: str = "llama4_pythonic"
    opening: str = "<|python_start|>"
    after: str = "]<|python_end|>"
    closing: str = "]<|python_end|>"
    skips: str = "[,"
    marks: tuple[tuple[str, ...], ...] = (("<|python_start|>",),)
