"""What a load's answers amount to: latencies, rates, goodput. Pure functions of instants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What a request must meet to count as good. None means no wish."""

    ttft_s: float | None = None
    """Time to the first token."""
    itl_s: float | None = None
    """Mean time between tokens."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of the values do not exceed; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def distribution_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median, p90, p95, p99 and mean in milliseconds."""
    values = {f"p{round(100 * share)}": percentile(seconds, share) for share in (0.5, 0.9, 0.95, 0.99)}
    values["mean"] = sum(seconds) / len(seconds) if seconds else None
    return {name: None if value is None else round(value * 1e3, 2) for name, value in values.items()}


def ttft_s(answer: dict[str, Any]) -> float:
    """From sending the request to its first event with content."""
    return float(answer["events_s"][0]) - float(answer["sent_s"])


def gaps_s(answer: dict[str, Any]) -> list[float]:
    """Between one event with content and the next."""
    return [after - before for before, after in itertools.pairwise(answer["events_s"])]


def is_good(answer: dict[str, Any], slo: Slo) -> bool:
    """Whether a request was answered and met the SLO."""
    if "error" in answer:
        return False
    gaps = gaps_s(answer)
    mean_gap_s = sum(gaps) / len(gaps) if gaps else 0.0
    return (slo.ttft_s is None or ttft_s(answer) <= slo.ttft_s) and (
        slo.itl_s is None or mean_gap_s <= slo.itl_s
    )


def decode_rate(answers: Sequence[dict[str, Any]], at_once: int) -> float | None:
    """Tokens per second in the times when so many answers were generated at once; None: never.

    An event counts for as many tokens as its answer has per event.
    """
    streams = [answer["events_s"] for answer in answers]
    turns = sorted(
        [(events[0], 1) for events in streams if events] + [(events[-1], -1) for events in streams if events]
    )
    full: list[tuple[float, float]] = []
    active = 0
    for (begin_s, change), (end_s, _) in itertools.pairwise(turns):
        active += change
        if active >= at_once and end_s > begin_s:
            full.append((begin_s, end_s))
    tokens = sum(
        (answer["completion_tokens"] or len(events)) / len(events)
        for answer, events in zip(answers, streams, strict=True)
        for event_s in events
        if any(begin_s < event_s <= end_s for begin_s, end_s in full)
    )
    return tokens / sum(end_s - begin_s for begin_s, end_s in full) if full else None


def summary(played: dict[str, Any], slo: Slo, at_once: int) -> dict[str, Any]:
    """The numbers of one round.

    Args:
        played: what the client wrote.
        slo: for the goodput.
        at_once: requests that were to be under way together, for the rate of decoding.
    """
    answers = played["answers"]
    fine = [answer for answer in answers if "error" not in answer]
    begin_s = min((a["sent_s"] for a in answers), default=0.0)
    seconds = max((a["ended_s"] for a in answers), default=0.0) - begin_s
    tokens = sum(a["completion_tokens"] or len(a["events_s"]) for a in fine)
    runs = [run["ended_s"] - run["started_s"] for run in played["runs"] if run["complete"]]
    good = sum(is_good(answer, slo) for answer in answers)
    decode = decode_rate(fine, at_once)
    return {
        "requests": len(answers),
        "failed": len(answers) - len(fine),
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1) if seconds else 0.0,
        "decode_tokens_per_s": None if decode is None else round(decode, 1),
        "ttft_ms": distribution_ms([ttft_s(a) for a in fine]),
        "inter_token_ms": distribution_ms([gap for a in fine for gap in gaps_s(a)]),
        "goodput_requests_per_s": round(good / seconds, 3) if seconds else 0.0,
        "good_fraction": round(good / len(answers), 4) if answers else 0.0,
        "runs": len(played["runs"]),
        "mean_run_s": round(sum(runs) / len(runs), 3) if runs else None,
        "prompt_tokens": sum(a["prompt_tokens"] or 0 for a in fine),
        "cached_tokens": sum(a["cached_tokens"] or 0 for a in fine),
        "completion_tokens": tokens,
        "client_cpu_fraction": round(played["cpu_seconds"] / played["seconds"], 4),
    }
