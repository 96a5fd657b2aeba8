"""A graph with a tool and a checkpoint: the second question goes on with the first."""

import json
import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


model = ChatOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="unused", model="scripted", max_retries=0)
graph = create_agent(model, tools=[add], checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "1"}}

pieces = 0
first = {"messages": [{"role": "user", "content": "What is 1 and 2?"}]}
for message, _ in graph.stream(first, thread, stream_mode="messages"):
    pieces += isinstance(message, AIMessageChunk) and bool(message.content)
messages = graph.get_state(thread).values["messages"]
second = graph.invoke({"messages": [{"role": "user", "content": "What did I ask?"}]}, thread)
print(
    json.dumps(
        {
            "answer": messages[-1].content,
            "types": [message.type for message in messages],
            "pieces": pieces,
            "remembered": len(second["messages"]),
        }
    )
)
