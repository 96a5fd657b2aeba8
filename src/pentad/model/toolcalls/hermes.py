"""Tool calls between tags, as Nous Hermes and Qwen write them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.objects import ObjectCalls

INSTRUCTION = """# Tools

You can call functions. They are described here, one per line:
<tools>
{tools}
</tools>

To call a function, write a JSON object with its name and arguments between <tool_call> tags:
<tool_call>
{"name": "function-name", "arguments": {"argument": "value"}}
</tool_call>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hermes(ObjectCalls):
    """`<tool_call>` tags, one object each. The default: small models learn it from the prompt alone.

    Source: the chat templates of Hermes 2 Pro and of Qwen 2.5.
    """

    name: str = "hermes"
    opening: str = "<tool_call>"
    before: str = "\n"
    between: str = "\n</tool_call>\n<tool_call>\n"
    after: str = "\n</tool_call>"
    closing: str = "</tool_call>"
    marks: tuple[tuple[str, ...], ...] = (("<tool_call>",),)
    instruction: str = INSTRUCTION
