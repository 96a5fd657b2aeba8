"""Tool calls as a control token, a name, an id and JSON, as Mistral Small 3.2 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class MistralIds(NamedCalls):
    """`[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}`; the id has nine letters and digits.

    Our own ids take its place in answers, as everywhere. Source: the chat template of Mistral Small 3.2 and
    version 11 of Mistral's instruct tokenizer.
    """

    name: str = "mistral_ids"
    opening: str = "[TOOL_CALLS]"
    between: str = "[TOOL_CALLS]"
    id_mark: str = "[CALL_ID]"
    id_pattern: str = "[A-Za-z0-9]{9}"
    id_text: str = "[CALL_ID]00000000{index}"
    separator: str = "[ARGS]"
    marks: tuple[tuple[str, ...], ...] = (("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),)
