"""The load generator of requests that wait for each other: a process of its own, as client.py.

    python -m pentad.application.bench.graph_client <plan.json >answers.json

A request is sent `pause_s` behind the last of those that it waits for, or at its own time. It may name the
answer that it follows from, whose id is known only then.
"""

from __future__ import annotations

import heapq
import json
import selectors
import sys
import time
from collections import defaultdict
from typing import Any

from pentad.application.bench.wire import Exchange, events_of


class GraphClient:
    """Plays all requests of a plan.

    Args:
        plan: `host`, `port`, `path`, `headers`, `body` (fields of every request), `deadline_s` and
            `requests`: each with `id`, `at_s`, `waits_for`, `pause_s`, `body` (own fields) and `parent`: it
            names the request whose answer is given as `pentad.parent`, or null.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._begin_s = time.perf_counter()
        self._awaited: dict[str, int] = {}
        self._followers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._order = 0
        self._flying = 0
        self._answer_ids: dict[str, str] = {}
        self.answers: list[dict[str, Any]] = []
        """Of all requests that were sent; those behind a failed one never are."""
        for request in plan["requests"]:
            if not request["waits_for"]:
                self._schedule(request["at_s"], request)
                continue
            self._awaited[request["id"]] = len(request["waits_for"])
            for other in request["waits_for"]:
                self._followers[other].append(request)

    def play(self) -> None:
        """Until every request has ended, or waits for one that failed, or the deadline has passed."""
        while self._due or self._flying:
            now_s = self._now()
            if now_s > self._plan["deadline_s"]:
                raise SystemExit(f"the load was not done after {now_s:.0f} s")
            while self._due and self._due[0][0] <= now_s:
                self._send(*heapq.heappop(self._due))
            wait_s = self._due[0][0] - self._now() if self._due else 1.0
            for key, mask in self._selector.select(min(max(0.0, wait_s), 1.0)):
                request, due_s, exchange = key.data
                if exchange.serve(self._selector, key, mask, self._now()):
                    self._end(request, due_s, exchange)

    def _now(self) -> float:
        return time.perf_counter() - self._begin_s

    def _schedule(self, at_s: float, request: dict[str, Any]) -> None:
        heapq.heappush(self._due, (at_s, self._order, request))
        self._order += 1

    def _send(self, due_s: float, _: int, request: dict[str, Any]) -> None:
        body = {**self._plan["body"], **request["body"]}
        if request["parent"] in self._answer_ids:
            body["pentad"] = {**body.get("pentad", {}), "parent": self._answer_ids[request["parent"]]}
        exchange = Exchange(self._plan, body, self._now())
        self._flying += 1
        events = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.register(exchange.sock, events, (request, due_s, exchange))

    def _end(self, request: dict[str, Any], due_s: float, exchange: Exchange) -> None:
        self._flying -= 1
        answer = exchange.answer() | {"id": request["id"], "due_s": due_s}
        self.answers.append(answer)
        if "error" in answer:
            return
        first = next(iter(events_of(exchange.body)), {})
        if "id" in first:
            self._answer_ids[request["id"]] = first["id"]
        for follower in self._followers.pop(request["id"], ()):
            self._awaited[follower["id"]] -= 1
            if not self._awaited[follower["id"]]:
                self._schedule(exchange.ended_s + follower["pause_s"], follower)


def main() -> None:
    """Plays the plan on standard input and writes the answers to standard output."""
    client = GraphClient(json.load(sys.stdin))
    before_s, begin_s = time.process_time(), time.perf_counter()
    client.play()
    seconds = time.perf_counter() - begin_s
    json.dump(
        {"answers": client.answers, "seconds": seconds, "cpu_seconds": time.process_time() - before_s},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
