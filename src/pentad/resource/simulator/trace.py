"""Arrival traces: what is asked when, and what waits for what."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from pentad.errors import InvalidRequest
from pentad.ranges import in_range

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE_BLOCK_TOKENS = 512
"""Tokens that one of a Mooncake trace's hash ids stands for."""
MAX_TOKENS = 10**7
"""Of one prompt or answer; what is longer is a slip."""
_FORMATS = "give an Azure LLM trace (.csv) or a Mooncake trace (.jsonl)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceItem:
    """One request of a trace."""

    id: str
    arrival_s: float = 0.0
    """Seconds from the start of the trace; without meaning when `after` is set."""
    prompt_tokens: int
    output_tokens: int
    segments: tuple[tuple[int, int], ...] = ()
    """(content id, tokens) from the front of the prompt; equal ids in front are equal tokens, so
    they meet in the prefix cache. What they leave of the prompt is the item's own."""
    after: str | None = None
    """The item that must have finished before this one arrives (the next step of an agent run)."""
    pause_s: float = 0.0
    """Time between that finish and this arrival: a tool call."""
    priority: int = 0
    tenant: str = "default"

    def __post_init__(self) -> None:
        in_range("arrival_s", self.arrival_s)
        in_range("prompt_tokens", self.prompt_tokens, least=1, most=MAX_TOKENS)
        in_range("output_tokens", self.output_tokens, least=1, most=MAX_TOKENS)
        in_range("pause_s", self.pause_s, least=0)


def prompt_of(item: TraceItem, vocab_size: int, *, seed: int = 0) -> tuple[int, ...]:
    """Token ids for an item: the same item and seed always give the same prompt."""
    parts: list[int] = []
    for content, count in item.segments:
        parts += _tokens(("shared", content), min(count, item.prompt_tokens - len(parts)), vocab_size, seed)
    parts += _tokens(("own", item.id), item.prompt_tokens - len(parts), vocab_size, seed)
    return tuple(parts)


def _tokens(name: tuple[str, object], count: int, vocab_size: int, seed: int) -> list[int]:
    if count <= 0:
        return []
    key = list(f"{seed}/{name[0]}/{name[1]}".encode())
    drawn: list[int] = np.random.Generator(np.random.PCG64(key)).integers(0, vocab_size, count).tolist()
    return drawn


def read_trace(
    path: str | pathlib.Path, *, limit: int | None = None, rate_scale: float = 1.0
) -> tuple[TraceItem, ...]:
    """A trace file in one of the published formats.

    `.csv` is the Azure LLM inference trace (TIMESTAMP, ContextTokens, GeneratedTokens); `.jsonl`
    is Mooncake's (timestamp in ms, input_length, output_length, hash_ids of 512-token blocks).

    Args:
        path: the file.
        limit: how many of its first items to take; None takes all.
        rate_scale: arrivals come this many times as fast.

    Raises:
        InvalidRequest: no such file or not such a format; names the line.
    """
    path = pathlib.Path(path)
    in_range("rate_scale", rate_scale, above=0, hint="set --rate-scale above 0")
    in_range("limit", limit, least=1, hint="set --limit to at least 1")
    readers = {".csv": _azure, ".jsonl": _mooncake}
    reader = readers.get(path.suffix)
    if reader is None:
        raise InvalidRequest(
            f"trace {path.name!r} is of no known format",
            hint=_FORMATS,
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            items = list(_first(reader(lines, path.name), limit))
    except OSError as error:
        raise InvalidRequest(f"cannot read trace {str(path)!r}: {error.strerror}", hint=_FORMATS) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"trace {path.name!r} is not UTF-8 text", hint=_FORMATS) from error
    if not items:
        raise InvalidRequest(f"trace {path.name!r} has no requests", hint=_FORMATS)
    return rescaled(items, rate_scale)


def rescaled(items: Iterable[TraceItem], rate_scale: float) -> tuple[TraceItem, ...]:
    """The items in arrival order, the first arriving at 0, `rate_scale` times as fast."""
    in_range("rate_scale", rate_scale, above=0)
    ordered = sorted(items, key=lambda item: item.arrival_s)
    start_s = ordered[0].arrival_s
    return tuple(replace(item, arrival_s=(item.arrival_s - start_s) / rate_scale) for item in ordered)


def _first(items: Iterator[TraceItem], limit: int | None) -> Iterator[TraceItem]:
    for i, item in enumerate(items):
        if i == limit:
            return
        yield item


def _azure(lines: Iterable[str], name: str) -> Iterator[TraceItem]:
    rows = csv.DictReader(lines)
    missing = [column for column in AZURE_COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise InvalidRequest(
            f"trace {name!r} lacks the column {missing[0]!r}", hint=f"its columns must be {AZURE_COLUMNS}"
        )
    for i, row in enumerate(rows):
        with _in_line(rows.line_num, name):
            at = datetime.fromisoformat(row["TIMESTAMP"])
            item = TraceItem(
                id=f"r{i}",
                arrival_s=(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(),
                prompt_tokens=int(row["ContextTokens"]),
                output_tokens=int(row["GeneratedTokens"]),
            )
        yield item


def _mooncake(lines: Iterable[str], name: str) -> Iterator[TraceItem]:
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        with _in_line(i + 1, name):
            row = json.loads(line)
            item = TraceItem(
                id=f"r{i}",
                arrival_s=float(row["timestamp"]) / 1000,
                prompt_tokens=int(row["input_length"]),
                output_tokens=int(row["output_length"]),
                segments=tuple((int(hash_id), MOONCAKE_BLOCK_TOKENS) for hash_id in row.get("hash_ids", ())),
            )
        yield item


@contextmanager
def _in_line(number: int, name: str) -> Iterator[None]:
    """Names the line of whatever is wrong in it."""
    where = f"line {number} of trace {name!r}"
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}", hint="mend or remove that line") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{where} is malformed", hint=_FORMATS) from error


def poisson(
    count: int,
    *,
    rate_per_s: float,
    prompt_tokens: tuple[int, int],
    output_tokens: tuple[int, int],
    seed: int = 0,
) -> tuple[TraceItem, ...]:
    """Memoryless arrivals with lengths drawn evenly from [low, high]."""
    in_range("limit", count, least=1)
    in_range("rate_per_s", rate_per_s, above=0)
    in_range("seed", seed, least=0)
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate_per_s, count))
    prompts = draw.integers(*prompt_tokens, size=count, endpoint=True)
    outputs = draw.integers(*output_tokens, size=count, endpoint=True)
    items = (
        TraceItem(id=f"r{i}", arrival_s=float(at), prompt_tokens=int(prompt), output_tokens=int(output))
        for i, (at, prompt, output) in enumerate(zip(arrivals, prompts, outputs, strict=True))
    )
    return rescaled(items, 1.0)


def agent_run(
    run: str, *, arrival_s: float, steps: int, first_prompt: int, added: int, output: int, pause_s: float
) -> tuple[TraceItem, ...]:
    """The requests of one agent run: each step's prompt is the last one and `added` tokens more.

    Args:
        run: name; step i is the item `{run}/{i}`.
        first_prompt: tokens of the first prompt.
        added: tokens that each later prompt adds: the answer before it and the tool's result.
        output: tokens that each step generates.
        pause_s: duration of the tool call between two steps.
    """
    return tuple(
        TraceItem(
            id=f"{run}/{i}",
            arrival_s=arrival_s,
            prompt_tokens=first_prompt + i * added,
            output_tokens=output,
            segments=tuple((_content_id(run, j), added if j else first_prompt) for j in range(i + 1)),
            after=f"{run}/{i - 1}" if i else None,
            pause_s=pause_s if i else 0.0,
        )
        for i in range(steps)
    )


def _content_id(run: str, part: int) -> int:
    """A number for part `part` of a run's prompt; different runs get different ones."""
    return int.from_bytes(f"{run}/{part}".encode(), "big")
