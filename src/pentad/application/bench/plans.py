"""Loads for the client: chats behind a shared system prompt, arrivals of a trace, runs of several turns."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest
from pentad.resource.simulator.trace import TraceItem

_WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work number night point home water
room mother area money story fact month lot right study book eye job word business issue side kind
head house service friend father power hour game line end member law car city name team minute idea
""".split()  # noqa: SIM905
"""Words that are one token in every usual vocabulary, so that a text of n of them has about n tokens."""


def text(tokens: int, seed: object) -> str:
    """About so many tokens of text; the same seed gives the same text."""
    draw = random.Random(f"pentad {seed}")
    return " ".join(draw.choices(_WORDS, k=max(1, tokens)))


def chats(
    count: int, *, system_tokens: int, user_tokens: int, new_tokens: int, seed: object
) -> list[dict[str, Any]]:
    """Requests of one turn each; all share the system prompt, none the question."""
    return [
        {
            "name": f"chat-{i}",
            "messages": _system(system_tokens),
            "turns": [{"user": text(user_tokens, (seed, i)), "pause_s": 0.0, "max_tokens": new_tokens}],
            "at_s": None,
        }
        for i in range(count)
    ]


def arrivals(items: Sequence[TraceItem], *, system_tokens: int, seed: object) -> list[dict[str, Any]]:
    """The requests of a trace at their times; a prompt's tokens beyond the shared ones are its own."""
    return [
        {
            "name": item.id,
            "messages": _system(system_tokens),
            "turns": [
                {
                    "user": text(item.prompt_tokens - system_tokens, (seed, item.id)),
                    "pause_s": 0.0,
                    "max_tokens": item.output_tokens,
                }
            ],
            "at_s": item.arrival_s,
        }
        for item in items
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatLoad:
    """Chats in a closed loop, or the arrivals of a trace."""

    system_tokens: int
    user_tokens: int
    new_tokens: int
    per_client: int = 1
    """Chats of each client, one after the other."""
    arrivals: tuple[TraceItem, ...] = ()
    """Where there are any, they are the load."""

    @property
    def longest(self) -> int:
        """Tokens that every request surely fits in, whatever the tokenizer."""
        asked = max((i.prompt_tokens + i.output_tokens for i in self.arrivals), default=self.new_tokens)
        return 2 * (self.system_tokens + self.user_tokens) + 2 * asked + 128

    def runs(self, concurrency: int, number: int) -> list[dict[str, Any]]:
        """The requests of one round, which differ from those of every other."""
        if self.arrivals:
            return arrivals(self.arrivals, system_tokens=self.system_tokens, seed=number)
        return chats(
            concurrency * self.per_client,
            system_tokens=self.system_tokens,
            user_tokens=self.user_tokens,
            new_tokens=self.new_tokens,
            seed=(concurrency, number),
        )


BUILTIN_TURNS: tuple[tuple[str, float, int], ...] = (
    ("Find out which of our three warehouses has the part and how long it would take.", 0.0, 48),
    ("Result of search_stock: warehouse north 4 pieces, warehouse south 0, warehouse west 12.", 0.6, 48),
    ("Result of shipping_time: north 3 days, west 5 days, express from west 2 days for 19.90.", 0.9, 64),
    ("Result of calculator: 12 * 4.75 + 19.90 = 76.90", 0.3, 48),
    ("Result of calendar: the customer is away until Thursday.", 0.5, 48),
    ("Write the answer to the customer in three sentences.", 0.2, 96),
)
"""User message, pause before it, tokens to generate: a run that is used where no trace is given."""


def agent_runs(
    count: int, *, turns: Sequence[Sequence[tuple[str, float, int]]], system_tokens: int, seed: object
) -> list[dict[str, Any]]:
    """Runs of several turns that share the system prompt; each asks about a thing of its own."""
    found = []
    for i in range(count):
        chosen = turns[i % len(turns)]
        found.append(
            {
                "name": f"run-{i}",
                "messages": _system(system_tokens),
                "turns": [
                    {
                        "user": f"Case {text(4, (seed, i))}. {user}" if number == 0 else user,
                        "pause_s": pause_s,
                        "max_tokens": tokens,
                    }
                    for number, (user, pause_s, tokens) in enumerate(chosen)
                ],
                "at_s": None,
            }
        )
    return found


def read_agent_traces(folder: pathlib.Path, *, min_turns: int) -> list[list[tuple[str, float, int]]]:
    """Runs out of traces in OpenTelemetry's GenAI form: one JSON file per trace, spans with messages.

    Spans of one trace in the order of their start are the turns of one run. What a span adds as user
    or tool message is the turn, the time since the span before it ended is the pause, and its output's
    length the tokens. Runs shorter than `min_turns` go through their trace again.

    Raises:
        InvalidRequest: no trace in the folder, or a file that is none.
    """
    runs = []
    for file in sorted(folder.glob("*.json")):
        try:
            spans = sorted(
                json.loads(file.read_text("utf-8"))["spans"], key=lambda span: str(span["start_time"])
            )
            turns = _turns(spans)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{file.name!r} is no trace of agent runs: {error!r}", param="traces"
            ) from error
        if turns:
            runs.append((turns * -(-min_turns // len(turns)))[: max(min_turns, len(turns))])
    if not runs:
        raise InvalidRequest(
            f"no traces of agent runs in {str(folder)!r}", hint="set --traces", param="traces"
        )
    return runs


def _turns(spans: Sequence[dict[str, Any]]) -> list[tuple[str, float, int]]:
    turns: list[tuple[str, float, int]] = []
    ended_s: float | None = None
    for span in spans:
        attributes = span["attributes"]
        messages = json.loads(attributes["gen_ai.input.messages"])
        added = [m for m in messages if m.get("role") in ("user", "tool")]
        if not added:
            continue
        begin_s, end_s = _seconds(span["start_time"]), _seconds(span["end_time"])
        answer = attributes.get("gen_ai.output.text") or attributes.get("gen_ai.output.messages") or ""
        pause_s = 0.0 if ended_s is None else min(max(0.0, begin_s - ended_s), 5.0)
        turns.append((str(added[-1]["content"]), pause_s, max(16, len(answer) // 4)))
        ended_s = end_s
    return turns


def _seconds(stamp: str) -> float:
    from datetime import UTC, datetime

    when = datetime.fromisoformat(stamp)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _system(tokens: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": text(tokens, "system")}] if tokens else []
