"""Tool calls as a bare JSON object, as Llama 3 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.objects import ObjectCalls

INSTRUCTION = """You can call functions. They are described here, one per line:
{tools}

To call a function, answer with nothing but a JSON object of this form:
{"name": "function-name", "parameters": {"argument": "value"}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Json(ObjectCalls):
    """The answer is the object itself; several are separated by semicolons.

    Where tools are offered, an answer that begins with a brace is a call.

    Source: the chat template of Llama 3.1; the separator is the one that vLLM's parser expects.
    """

    name: str = "llama3_json"
    opening: str = ""
    between: str = "; "
    skips: str = ";"
    arguments_key: str = "parameters"
    marks: tuple[tuple[str, ...], ...] = (("<|python_tag|>",), ('{"name": function name, "parameters"',))
    instruction: str = INSTRUCTION
