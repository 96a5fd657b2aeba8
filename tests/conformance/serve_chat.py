"""A server of one scripted chat model for the suites: prints its URL, ends with its standard input.

The model calls the first tool that it is shown once, with the number or the name in the question; says
what the tool returned; and fills in whatever form is demanded of it. Asked for JSON without a schema it
gives an object with the keys that the question quotes.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from gateway_support import scripted
from obedient_model import instance, obedient
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall

MOST_TOKENS = 512


def arguments(schema: Mapping[str, Any], question: str) -> dict[str, Any]:
    """What the question says for each field, else the plainest value."""
    number, name = re.search(r"-?\d+", question), re.search(r"[^\x00-\x7f]+", question)
    found = {}
    for field, kind in schema.get("properties", {}).items():
        if kind.get("type") in ("integer", "number") and number:
            found[field] = int(number[0])
        elif kind.get("type") == "string" and name:
            found[field] = name[0]
        elif field in schema.get("required", ()):
            found[field] = instance(kind)
    return found


def answer(request: Request) -> Sequence[Item]:
    """The model's turn."""
    if request.sampling.max_tokens is None:  # such clients leave the length to the server
        request = replace(request, sampling=replace(request.sampling, max_tokens=MOST_TOKENS))
    messages = request.messages or ()
    last = messages[-1] if messages else None
    if request.format.kind == "json_object" and last is not None:
        keys = re.findall(r"['\"`](\w+)['\"`]", last.content)
        return [TextDelta(text=json.dumps(dict.fromkeys(keys, "twelve"))), ChoiceDone(reason="stop")]
    if request.format.kind != "text" or last is None or not request.tools:
        return obedient(request)
    if last.role == "tool":
        return [TextDelta(text=f"It is {last.content}."), ChoiceDone(reason="stop")]
    if request.tool_choice.mode != "none":
        named = request.tool_choice.name
        made = next(tool for tool in request.tools if named in (None, tool.name))
        text = json.dumps(arguments(made.parameters, last.content), ensure_ascii=False)
        return [ToolCall(id=f"call-{request.id}", name=made.name, arguments=text)]
    return obedient(request)


with scripted(answer, repeat=True) as server:
    print(server.url, flush=True)
    sys.stdin.read()
