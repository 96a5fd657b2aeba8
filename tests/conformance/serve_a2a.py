"""A server of scripted agents for a2a-proof: prints its URL, ends with its standard input.

`helper` says that it is done; `careful` asks a person before it calls its tool.
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from agent_support import call, spec
from gateway_support import scripted
from pentad.testing.backends import Item
from pentad.types import Request


def answer(request: Request) -> list[Item]:
    """The turn of the agent that its instructions name."""
    messages = request.messages or ()
    told = " ".join(message.content for message in messages if message.role == "system")
    if messages[-1].role == "tool":
        return [f"It is {messages[-1].content}."]
    if "careful" in told:
        return [call("calculator", expression="2 + 3")]
    if any(message.role == "assistant" for message in messages):
        return ["It is still done."]
    return ["It is done."]


agents = {
    "helper": spec(name="helper", description="Helps.", instructions="I am the helper."),
    "careful": spec(
        name="careful",
        description="Counts.",
        instructions="I am careful.",
        tools=("calculator",),
        ask=("calculator",),
    ),
}
with scripted(answer, repeat=True, agents=agents) as server:
    print(server.url, flush=True)
    sys.stdin.read()
