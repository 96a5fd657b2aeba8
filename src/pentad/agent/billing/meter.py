"""What a run used of each model, tool and device, from its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pentad.agent.billing.shares import Kind
from pentad.agent.events import Record, RunStarted
from pentad.agent.model_events import ModelAnswered
from pentad.agent.tool_events import ToolReturned


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """So much of one thing, in one run."""

    kind: Kind
    name: str
    quantity: float


def metered_use(records: Iterable[Record]) -> tuple[Metered, ...]:
    """What a run used, ordered by kind and name: a replayed record gives the same.

    A model is the one that the router chose. Device seconds are those of the execution layer's spans.
    """
    tokens: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    named = ""
    for record in records:
        match record.event:
            case RunStarted() as event:
                named = str(event.agent.get("model") or "")
            case ModelAnswered() as event:
                usage = event.usage
                model = next((d.chosen for d in usage.decisions if d.subject == "model"), named)
                tokens[model] += usage.total_tokens
                spans = (s for s in usage.spans if s.layer == "execution")
                seconds[model] = seconds.get(model, 0.0) + sum(s.end_s - s.start_s for s in spans)
            case ToolReturned() as event:
                calls[event.tool] += 1
    found = [Metered(kind="tokens", name=name, quantity=n) for name, n in sorted(tokens.items())]
    found += [Metered(kind="tool_calls", name=name, quantity=n) for name, n in sorted(calls.items())]
    found += [
        Metered(kind="device_seconds", name=name, quantity=round(each, 6))
        for name, each in sorted(seconds.items())
        if each > 0
    ]
    return tuple(found)
