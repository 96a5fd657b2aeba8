"""The load generator: a process of its own that only sends requests and notes when answers arrive.

    python -m pentad.application.bench.client <plan.json >answers.json

One thread, plain sockets, no parsing of events beyond counting them while answers come in, so that it
takes as little as possible of the cores that the server computes on. docs/benchmarks.md has the plan.
"""

from __future__ import annotations

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
    counted: int = 0
    """Bytes of it that were looked at."""
    events_s: list[float] = field(default_factory=list)
    """When events with content arrived."""


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
            end = turn.received.rfind(b"\n") + 1
            count = len(_CONTENT.findall(turn.received, turn.counted, end)) if end > turn.counted else 0
            turn.counted = max(end, turn.counted)
            turn.events_s += [now_s] * count
            if not data or turn.received.endswith((b"data: [DONE]\n\n", b"data: [DONE]\n\n\r\n0\r\n\r\n")):
                self._end(run, turn, now_s)

    def _end(self, run: Run, turn: Turn, now_s: float) -> None:
        self._selector.unregister(turn.sock)
        turn.sock.close()
        self._flying -= 1
        received = bytes(turn.received)
        status = int(received[9:12] or 0) if received.startswith(b"HTTP/") else 0
        answer = {
            "run": run.name,
            "turn": run.done,
            "status": status,
            "sent_s": turn.sent_s,
            "ended_s": now_s,
            "events_s": turn.events_s,
            "completion_tokens": _last(_COMPLETION, received),
            "prompt_tokens": _last(_PROMPT, received),
            "cached_tokens": _last(_CACHED, received),
        }
        if status != 200 or not turn.events_s:
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


def text_of(received: bytes) -> str:
    """The answer's text, put together from its events."""
    events = (json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {"))
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
