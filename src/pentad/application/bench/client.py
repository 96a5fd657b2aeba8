"""The load generator: a process of its own that only sends requests and notes when answers arrive.

    python -m pentad.application.bench.client <plan.json >answers.json

One thread and plain sockets. While answers come in it only notes how many bytes came when; events are
read when an answer has ended. So it takes little of the cores that the server computes on.
"""

from __future__ import annotations

import bisect
import json
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

_CONTENT = re.compile(rb'"content":\s*"(?!")')
_COMPLETION = re.compile(rb'"completion_tokens":\s*(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens":\s*(\d+)')
_CACHED = re.compile(rb'"cached_tokens":\s*(\d+)')
_CHUNK = 1 << 16


@dataclass(slots=True)
class Turn:
    """One request on the wire and what has come of it."""

    sent_s: float
    sock: socket.socket
    out: bytes
    """What is still to be sent."""
    received: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[int, float]] = field(default_factory=list)
    """How many bytes had arrived when, once per read."""


@dataclass(slots=True)
class Run:
    """A conversation: its turns one after the other."""

    name: str
    messages: list[dict[str, str]]
    turns: list[dict[str, Any]]
    at_s: float | None
    """When it arrives; None: when another one has ended."""
    started_s: float = 0.0
    due_s: float = 0.0
    """When its next turn is to be sent."""
    done: int = 0
    turn: Turn | None = None


class Client:
    """Plays all runs of a plan.

    Args:
        plan: `host`, `port`, `path`, `headers`, `body` (fields of every request), `runs` (each with
            `messages`, `turns` of `user`, `pause_s`, `max_tokens`, and `at_s` or null), `concurrency`
            (of the runs without `at_s`), `deadline_s`.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._begin_s = time.perf_counter()
        runs = [
            Run(name=run["name"], messages=run["messages"], turns=run["turns"], at_s=run["at_s"])
            for run in plan["runs"]
        ]
        self._timed = sorted((run for run in runs if run.at_s is not None), key=lambda run: run.at_s or 0)
        self._queued = [run for run in runs if run.at_s is None][::-1]
        self._free = int(plan["concurrency"])
        self._pausing: list[Run] = []
        self._flying = 0
        self.answers: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []

    def play(self) -> None:
        """Until every run has ended or the deadline has passed."""
        while self._timed or self._queued or self._pausing or self._flying:
            now_s = self._now()
            if now_s > self._plan["deadline_s"]:
                raise SystemExit(f"the load was not done after {now_s:.0f} s")
            self._start(now_s)
            waits = [run.due_s for run in self._pausing] + [run.at_s or 0.0 for run in self._timed[:1]]
            wait_s = max(0.0, min(waits, default=now_s + 1.0) - now_s)
            for key, mask in self._selector.select(min(wait_s, 1.0)):
                self._serve(key.data, mask)

    def _now(self) -> float:
        return time.perf_counter() - self._begin_s

    def _start(self, now_s: float) -> None:
        while self._timed and (self._timed[0].at_s or 0.0) <= now_s:
            self._begin(self._timed.pop(0))
        while self._queued and self._free:
            self._free -= 1
            self._begin(self._queued.pop())
        for run in [run for run in self._pausing if run.due_s <= now_s]:
            self._pausing.remove(run)
            self._send(run)

    def _begin(self, run: Run) -> None:
        run.started_s = self._now()
        self._send(run)

    def _send(self, run: Run) -> None:
        plan, turn = self._plan, run.turns[run.done]
        run.messages.append({"role": "user", "content": turn["user"]})
        body = json.dumps(
            {**plan["body"], "messages": run.messages, "max_tokens": turn["max_tokens"]}
        ).encode()
        lines = [f"POST {plan['path']} HTTP/1.1", f"Host: {plan['host']}:{plan['port']}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *plan["headers"], "", ""]
        sock = socket.create_connection((plan["host"], plan["port"]), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        run.turn = Turn(sent_s=self._now(), sock=sock, out="\r\n".join(lines).encode() + body)
        self._flying += 1
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, run)

    def _serve(self, run: Run, mask: int) -> None:
        turn = run.turn
        assert turn is not None, "a run on the wire has a turn"
        if mask & selectors.EVENT_WRITE:
            turn.out = turn.out[turn.sock.send(turn.out) :]
            if not turn.out:
                self._selector.modify(turn.sock, selectors.EVENT_READ, run)
        if mask & selectors.EVENT_READ:
            data = turn.sock.recv(_CHUNK)
            now_s = self._now()
            turn.received += data
            turn.arrivals.append((len(turn.received), now_s))
            if not data or turn.received.endswith((b"data: [DONE]\n\n", b"data: [DONE]\n\n\r\n0\r\n\r\n")):
                self._end(run, turn, now_s)

    def _end(self, run: Run, turn: Turn, now_s: float) -> None:
        self._selector.unregister(turn.sock)
        turn.sock.close()
        self._flying -= 1
        received, places = body_of(bytes(turn.received))
        status = int(turn.received[9:12] or 0) if turn.received.startswith(b"HTTP/") else 0
        events_s = [arrived_s(turn.arrivals, places, match.end()) for match in _CONTENT.finditer(received)]
        answer = {
            "run": run.name,
            "turn": run.done,
            "status": status,
            "sent_s": turn.sent_s,
            "ended_s": now_s,
            "events_s": events_s,
            "completion_tokens": _last(_COMPLETION, received),
            "prompt_tokens": _last(_PROMPT, received),
            "cached_tokens": _last(_CACHED, received),
        }
        if status != 200 or not events_s:
            answer["error"] = received[-300:].decode("utf-8", "replace")
        self.answers.append(answer)
        run.turn = None
        run.done += 1
        if run.done < len(run.turns) and "error" not in answer:
            run.messages.append({"role": "assistant", "content": text_of(received)})
            run.due_s = now_s + run.turns[run.done]["pause_s"]
            self._pausing.append(run)
            return
        if run.at_s is None:
            self._free += 1
        self.runs.append(
            {"run": run.name, "started_s": run.started_s, "ended_s": now_s, "turns": run.done,
             "complete": run.done == len(run.turns) and "error" not in answer}
        )  # fmt: skip


def body_of(received: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The body of an HTTP answer, and where each of its parts lay: (place in the body, in what arrived)."""
    head, _, _ = received.partition(b"\r\n\r\n")
    at = len(head) + 4
    if b"transfer-encoding: chunked" not in head.lower():
        return received[at:], [(0, at)]
    parts: list[bytes] = []
    places = [(0, at)]
    length = 0
    while (end := received.find(b"\r\n", at)) > 0:
        size = int(received[at:end].split(b";")[0] or b"0", 16)
        if size == 0:
            break
        places.append((length, end + 2))
        parts.append(received[end + 2 : end + 2 + size])
        length += size
        at = end + 2 + size + 2
    return b"".join(parts), places


def arrived_s(arrivals: list[tuple[int, float]], places: list[tuple[int, int]], at: int) -> float:
    """When the byte in front of place `at` of the body had arrived."""
    body, raw = places[bisect.bisect_right(places, at - 1, key=lambda place: place[0]) - 1]
    return arrivals[bisect.bisect_left(arrivals, raw + at - body, key=lambda arrival: arrival[0])][1]


def text_of(body: bytes) -> str:
    """The answer's text, put together from its events."""
    events = (json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {"))
    choices = (choice for event in events for choice in event.get("choices") or ())
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


def _last(pattern: re.Pattern[bytes], received: bytes) -> int | None:
    found = pattern.findall(received)
    return int(found[-1]) if found else None


def main() -> None:
    """Plays the plan on standard input and writes the answers to standard output."""
    plan = json.load(sys.stdin)
    client = Client(plan)
    before_s = time.process_time()
    begin_s = time.perf_counter()
    client.play()
    json.dump(
        {
            "answers": client.answers,
            "runs": client.runs,
            "seconds": time.perf_counter() - begin_s,
            "cpu_seconds": time.process_time() - before_s,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
