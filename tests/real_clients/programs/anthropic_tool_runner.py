"""Anthropic's tool runner with its threads: it asks to keep the conversation, is refused, sends all of it."""

import json
import sys

from anthropic import Anthropic, beta_tool


@beta_tool
def add(a: int, b: int) -> str:
    """Adds two numbers.

    Args:
        a: one.
        b: the other.
    """
    return str(a + b)


client = Anthropic(base_url=sys.argv[1], api_key="unused", max_retries=0)
ask = [{"role": "user", "content": "What is 1 and 2, and twice that?"}]
said = []
for stream in (False, True):
    runner = client.beta.messages.tool_runner(
        model="scripted", max_tokens=50, messages=ask, tools=[add], stream=stream
    )
    said.append(runner.until_done().content[0].text)
print(json.dumps(said))
