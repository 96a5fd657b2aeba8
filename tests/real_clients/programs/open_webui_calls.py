"""What Open WebUI asks of an OpenAI connection, in its order and through its HTTP library.

It looks for models when the connection is saved, streams the chat and merges the pieces as they come, runs a
tool and goes on, then asks the same model for a title, tags and follow-ups, and for vectors of documents.
"""

import asyncio
import json
import sys

import aiohttp

BASE = f"{sys.argv[1]}/v1"
HEADERS = {
    "Authorization": "Bearer unused",
    "Content-Type": "application/json",
    "X-OpenWebUI-User-Name": "Ada%20L",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "chat-1",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": ""}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


async def streamed(session: aiohttp.ClientSession, **body: object) -> dict[str, object]:
    """The text, the calls merged by index, and the usage."""
    text, calls, usage, ended = "", {}, None, False
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{BASE}/chat/completions", data=json.dumps(asked), headers=HEADERS) as answer:
        assert "text/event-stream" in answer.headers["Content-Type"], await answer.text()
        async for raw in answer.content:
            line = raw.decode().strip()
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                ended = True
                continue
            chunk = json.loads(data)
            assert "error" not in chunk, chunk
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                delta = choice["delta"]
                text += delta.get("content") or ""
                for call in delta.get("tool_calls") or []:
                    if call["index"] in calls:
                        calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                    else:
                        calls[call["index"]] = call
    assert ended, "the stream did not say that it was over"
    return {"text": text, "calls": list(calls.values()), "usage": usage}


async def task(session: aiohttp.ClientSession, model: str, name: str) -> dict[str, object]:
    """One of the small jobs behind a chat; their answers are JSON in text."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"### Task: {name} as JSON"}],
        "stream": False,
        "max_completion_tokens": 1000,
    }
    async with session.post(f"{BASE}/chat/completions", data=json.dumps(body), headers=HEADERS) as answer:
        assert answer.status == 200, await answer.text()
        content = (await answer.json())["choices"][0]["message"]["content"]
    return json.loads(content[content.index("{") : content.rindex("}") + 1])


async def main() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(f"{BASE}/models", headers=HEADERS) as answer:
            models = [model["id"] for model in (await answer.json())["data"]]
        chat = {"model": "scripted", "temperature": 0.7, "max_tokens": 256, "tools": [TOOL]}
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is 1 and 2?"}]},
        ]
        first = await streamed(session, messages=messages, **chat)
        messages += [
            {"role": "assistant", "content": first["text"], "tool_calls": first["calls"]},
            {"role": "tool", "tool_call_id": first["calls"][0]["id"], "content": "3"},
        ]
        second = await streamed(session, messages=messages, **chat)
        said = {"models": models, "calls": first["calls"], "text": second["text"], "usage": second["usage"]}
        for name in ("title", "tags", "follow_ups"):
            said |= await task(session, "scripted", name)
        body = json.dumps({"input": ["one", "two"], "model": "vectors"})
        async with session.post(f"{BASE}/embeddings", data=body, headers=HEADERS) as answer:
            said["vectors"] = len((await answer.json())["data"])
    print(json.dumps(said))


asyncio.run(main())
