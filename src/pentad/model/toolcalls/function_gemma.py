"""Tool calls between control tokens, texts between escape tokens, as FunctionGemma writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.gemma import Gemma
from pentad.model.toolcalls.literals import FUNCTION_GEMMA, Notation


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionGemma(Gemma):
    """As Gemma 4's with other marks; keys within values are quoted.

    Source: the chat template of FunctionGemma.
    """

    name: str = "function_gemma"
    opening: str = "<start_function_call>"
    between: str = "<end_function_call><start_function_call>"
    after: str = "<end_function_call>"
    closing: str = "<end_function_call>"
    notation: Notation = FUNCTION_GEMMA
    marks: tuple[tuple[str, ...], ...] = (("<start_function_call>",),)
