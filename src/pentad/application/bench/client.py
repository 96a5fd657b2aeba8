"""The load generator: a process of its own that only sends requests and notes when answers arrive.

    python -m pentad.application.bench.client <plan.json >answers.json

One thread and plain sockets. While answers come in it only notes how many bytes came when; events are
read when an answer has ended. So it takes little of the cores that the server computes on.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from dataclasses import dataclass
from typing import Any

from pentad.application.bench.wire import Exchange, text_of


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
    turn: Exchange | None = None


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
                run = key.data
                if run.turn.serve(self._selector, key, mask, self._now()):
                    self._end(run, run.turn)

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
        body = {**plan["body"], "messages": run.messages, "max_tokens": turn["max_tokens"]}
        exchange = run.turn = Exchange(plan, body, self._now())
        self._flying += 1
        self._selector.register(exchange.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, run)

    def _end(self, run: Run, exchange: Exchange) -> None:
        self._flying -= 1
        now_s = exchange.ended_s
        answer = {"run": run.name, "turn": run.done, **exchange.answer()}
        self.answers.append(answer)
        run.turn = None
        run.done += 1
        if run.done < len(run.turns) and "error" not in answer:
            run.messages.append({"role": "assistant", "content": text_of(exchange.body)})
            run.due_s = now_s + run.turns[run.done]["pause_s"]
            self._pausing.append(run)
            return
        if run.at_s is None:
            self._free += 1
        self.runs.append(
            {"run": run.name, "started_s": run.started_s, "ended_s": now_s, "turns": run.done,
             "complete": run.done == len(run.turns) and "error" not in answer}
        )  # fmt: skip


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
