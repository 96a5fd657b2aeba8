"""Sends a hundred hostile bodies at once, as a program of its own: python tests/hostile_client.py URL

Behind the server in priority: what is looked at is the server, not its clients. Prints the statuses, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2


def say(content: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **more}


def hostile_bodies() -> list[tuple[str, bytes]]:
    """A hundred of them: path and body."""
    chat = "/v1/chat/completions"
    texts = ["word " * 1_600_000, "a" * 8_000_000, "\u4f60\u597d\u4e16\u754c" * 660_000, "7 1 " * 2_000_000]
    bodies: list[tuple[str, bytes]] = []

    def add(path: str, body: dict[str, Any]) -> None:
        raw = json.dumps(body, ensure_ascii=False).encode()
        assert len(raw) <= 8 * 2**20
        bodies.append((path, raw))

    for index in range(24):
        add(chat, say(texts[index % 4]))
    for index in range(4):
        add(chat, say("hi", prediction={"type": "content", "content": texts[index]}))
        add("/v1/completions", {"prompt": texts[index], "max_tokens": 8})
        add("/v1/embeddings", {"input": texts[index]})
        add("/tokenize", {"prompt": texts[index]})
        add("/v1/messages", say(texts[index]))
    for index in range(20):
        bomb = {"regex": "(" * 20 + "a+" + ")+" * 20} if index % 2 else {"regex": f"(a|b){{{3000 + index}}}"}
        add(chat, say("hi", structured_outputs=bomb))
    lists = b'{"messages": [{"role": "user", "content": "hi"}], "tools": [' + b"[]," * 2_600_000 + b"[]]}"
    deep = (
        b'{"messages": [{"role": "user", "content": "hi"}], "tools": ' + b"[" * 2_000_000 + b"]" * 2_000_000
    )
    bodies.extend([(chat, lists)] * 8 + [(chat, deep + b"}")] * 4)
    for index in range(12):
        options = {"enum": [f"value {index} {i}" for i in range(4000)]}
        schema = {"type": "object", "properties": {f"p{i}": options for i in range(4)}}
        add(
            chat,
            say(
                "hi", response_format={"type": "json_schema", "json_schema": {"name": "b", "schema": schema}}
            ),
        )
    while len(bodies) < 100:
        pattern = {"regex": f"[a-z]{{1,{500 + len(bodies)}}}x"}
        add(chat, say("hi", n=128, structured_outputs=pattern))
    return bodies


def main(url: str) -> None:
    """Sends them over a hundred connections."""
    os.nice(10)
    # One client: making a hundred, each with its certificates, would be most of the work.
    limits = httpx2.Limits(max_connections=None)
    with httpx2.Client(base_url=url, timeout=600, limits=limits) as client, ThreadPoolExecutor(100) as pool:

        def send(item: tuple[str, bytes]) -> int:
            path, body = item
            return client.post(path, content=body).status_code

        print(json.dumps(list(pool.map(send, hostile_bodies()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
