"""Tool calls as a list of calls in Python between control tokens, as LFM2 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.pythonic import Pythonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Lfm2(Pythonic):
    """`<|tool_call_start|>`, the list, `<|tool_call_end|>`.

    Source: the chat template of LFM2.
    """

    name: str = "lfm2"
    opening: str = "<|tool_call_start|>"
    after: str = "]<|tool_call_end|>"
    closing: str = "]<|tool_call_end|>"
    skips: str = "[,"
    marks: tuple[tuple[str, ...], ...] = (("<|tool_call_start|>",), ("<|tool_list_start|>",))
