"""A client that takes all it can get, as a program of its own: python tests/pressure_client.py URL KEY

Until its input ends it keeps 64 runs, 256 followers of them, 256 withheld bodies and 64 urgent chats under
way, as far as the server lets it. It prints what it got, as JSON, at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

import httpx2

RUNS, FOLLOWERS, WITHHELD, CHATS = 64, 256, 256, 64
PAUSE_S = 1.0
"""Behind a refusal: the pressure shall be on the server's shares, not on the machine's two cores."""
AGENT = {"name": "greedy", "instructions": "Write long stories.", "max_steps": 4, "max_tokens": 256}
GOAL = "Tell me a very long story about the sea and all who live in it."


class Greedy:
    """One tenant's tasks against one server."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"authorization": f"Bearer {key}"}
        self.client = httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=None)
        self.counts: Counter[str] = Counter()
        self.run_ids: list[str] = []

    async def work(self, until: asyncio.Event) -> None:
        """All of it at once, until told to stop."""
        kinds = [
            (self.runs, RUNS),
            (self.followers, FOLLOWERS),
            (self.withheld, WITHHELD),
            (self.chats, CHATS),
        ]
        tasks = [asyncio.create_task(self._again(kind)) for kind, count in kinds for _ in range(count)]
        await until.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.aclose()

    async def _again(self, kind: Any) -> None:
        while True:
            try:
                self.counts[f"{kind.__name__} {await kind()}"] += 1
            except (httpx2.HTTPError, OSError) as error:
                self.counts[f"{kind.__name__} {type(error).__name__}"] += 1
            await asyncio.sleep(PAUSE_S)

    async def runs(self) -> int:
        """A run, followed to its end by asking now and then."""
        answer = await self.client.post("/v1/runs", json={"agent": AGENT, "goal": GOAL})
        if answer.status_code != 201:
            return answer.status_code
        run_id = answer.json()["id"]
        self.run_ids.append(run_id)
        status = "running"
        while status == "running":
            await asyncio.sleep(2 * PAUSE_S)
            status = (await self.client.get(f"/v1/runs/{run_id}")).json().get("status")
        self.run_ids.remove(run_id)
        return 201

    async def followers(self) -> int:
        """One more follower of a run."""
        if not self.run_ids:
            return 0
        async with self.client.stream("GET", f"/v1/runs/{self.run_ids[-1]}/events") as answer:
            async for _ in answer.aiter_bytes():
                pass
            return answer.status_code

    async def withheld(self) -> int:
        """A request whose body never comes."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: {}:{}\r\nAuthorization: Bearer {}\r\n"
        writer.write((head + "Content-Length: 1000\r\n\r\n").format(host, port, self.key).encode())
        try:
            line = await reader.readline()
            return int(line.split()[1]) if line else 0
        finally:
            writer.close()

    async def chats(self) -> int:
        """A long chat of the most urgent priority that can be written."""
        body = {"messages": [{"role": "user", "content": GOAL}], "max_tokens": 256, "ignore_eos": True}
        answer = await self.client.post("/v1/chat/completions", json={**body, "priority": -(2**31)})
        return answer.status_code


async def main(url: str, key: str) -> None:
    """Presses until standard input ends."""
    os.nice(10)
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: until.set())
    greedy = Greedy(url, key)
    await greedy.work(until)
    print(json.dumps(dict(sorted(greedy.counts.items()))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
