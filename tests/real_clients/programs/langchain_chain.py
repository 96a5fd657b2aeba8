"""A chain of prompt, model and parser, streamed; then a model with a tool, its call run and answered."""

import json
import sys

from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


model = ChatOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="unused", model="scripted", max_retries=0)
chain = (
    ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "Say {word}")])
    | model
    | StrOutputParser()
)
pieces = [piece for piece in chain.stream({"word": "hello"}) if piece]

able = model.bind_tools([add])
messages = [HumanMessage("What is 1 and 2?")]
called = None
for chunk in able.stream(messages):
    called = chunk if called is None else called + chunk
calls = called.tool_calls
messages += [called, *(add.invoke(call) for call in calls)]
answer = able.invoke(messages)
print(
    json.dumps(
        {
            "pieces": pieces,
            "calls": [{"name": call["name"], "args": call["args"]} for call in calls],
            "results": [message.content for message in messages[2:]],
            "answer": answer.content,
            "tokens": answer.usage_metadata["output_tokens"],
        }
    )
)
