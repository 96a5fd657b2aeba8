"""Tool calls as messages to a recipient in the commentary channel, as gpt-oss writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmony(NamedCalls):
    """One call ends the turn. Its opening begins the header of a message; the recipient is the tool.

    Source: OpenAI's Harmony response format.
    """

    name: str = "harmony"
    opening: str = "<|channel|>commentary to=functions."
    separator: str = " <|constrain|>json<|message|>"
    closing: str = "<|call|>"
    parallel: bool = False
    marks: tuple[tuple[str, ...], ...] = (("<|channel|>", "<|message|>", "to=functions."),)
