"""Arrival traces in files: which format a file has, and the tables among them.

.csv     a row per request: Azure's and BurstGPT's columns
.jsonl   an object per request: Mooncake's
.json    an object per run, or a folder of them: coding sessions (sessions.py), or OpenTelemetry's spans
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.simulator.sessions import SessionScale, session_items
from pentad.resource.simulator.telemetry import Span, is_telemetry, spans_of, telemetry_items
from pentad.resource.simulator.trace import TraceItem, rescaled

MOONCAKE_BLOCK_TOKENS: Final = 512
"""Tokens that one of a Mooncake trace's hash ids stands for."""
_FORMATS: Final = (
    "give an Azure LLM trace or BurstGPT's (.csv), Mooncake's (.jsonl), sessions or OpenTelemetry's spans "
    "(.json, a folder)"
)


@dataclass(frozen=True, slots=True)
class _Table:
    """A form of CSV: the columns that tell of a request, and how the first one is read."""

    time: str
    prompt: str
    output: str
    seconds: Callable[[str], float]

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output


def _instant(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


_TABLES: Final = (
    _Table("TIMESTAMP", "ContextTokens", "GeneratedTokens", _instant),
    _Table("Timestamp", "Request tokens", "Response tokens", float),
)


def read_trace(
    path: str | pathlib.Path,
    *,
    limit: int | None = None,
    rate_scale: float = 1.0,
    scale: SessionScale | None = None,
) -> tuple[TraceItem, ...]:
    """A trace file in one of the published formats.

    `.csv` is the Azure LLM inference trace (TIMESTAMP, ContextTokens, GeneratedTokens) or BurstGPT's
    (Timestamp in s, Request tokens, Response tokens; rows without a response, which failed, are left out);
    `.jsonl` is Mooncake's (timestamp in ms, input_length, output_length, hash_ids of 512-token blocks);
    `.json`, or a folder of such files, holds coding sessions, see `session_items`, or spans of model calls
    as OpenTelemetry exports them, see `telemetry_items`; `.jsonl` may hold one such export a line.

    Args:
        path: the file or folder.
        limit: how many of its first items to take; None takes all.
        rate_scale: arrivals come this many times as fast.
        scale: how coding sessions are made smaller; None leaves them as they are.

    Raises:
        InvalidRequest: no such file or not such a format; names the line.
    """
    path = pathlib.Path(path)
    in_range("rate_scale", rate_scale, above=0, hint="set --rate-scale above 0")
    in_range("limit", limit, least=1, hint="set --limit to at least 1")
    try:
        items = list(_first(_items(path, scale or SessionScale()), limit))
    except OSError as error:
        raise InvalidRequest(f"cannot read trace {str(path)!r}: {error.strerror}", hint=_FORMATS) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"trace {path.name!r} is not UTF-8 text", hint=_FORMATS) from error
    if not items:
        raise InvalidRequest(f"trace {path.name!r} has no requests", hint=_FORMATS)
    return rescaled(items, rate_scale)


def _items(path: pathlib.Path, scale: SessionScale) -> Iterator[TraceItem]:
    if path.is_dir() or path.suffix == ".json":
        files = scale.taken(sorted(path.glob("*.json"))) if path.is_dir() else [path]
        spans: list[Span] = []
        for number, file in enumerate(files):
            yield from _object(file, number, scale, spans)
        yield from telemetry_items(spans)
        return
    readers = {".csv": _table, ".jsonl": _lines}
    reader = readers.get(path.suffix)
    if reader is None:
        raise InvalidRequest(f"trace {path.name!r} is of no known format", hint=_FORMATS)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from reader(lines, path.name)


def _first(items: Iterator[TraceItem], limit: int | None) -> Iterator[TraceItem]:
    for i, item in enumerate(items):
        if i == limit:
            return
        yield item


def _object(path: pathlib.Path, number: int, scale: SessionScale, spans: list[Span]) -> Iterator[TraceItem]:
    """The items of a session; spans are put beside those of other files, since a run may be in several."""
    with _in_place(f"trace {path.name!r}", "mend that file, or take it out"):
        session = json.loads(path.read_text(encoding="utf-8-sig"))
        if is_telemetry(session):
            spans += spans_of(session)
            return
        if not isinstance(session, Mapping) or not isinstance(session.get("requests"), list):
            raise InvalidRequest("it has no list of requests")
        items = session_items(session, path.stem, number / scale.runs_per_s, scale)
    yield from items


def _table(lines: Iterable[str], name: str) -> Iterator[TraceItem]:
    rows = csv.DictReader(lines)
    found = set(rows.fieldnames or ())
    known = [table for table in _TABLES if found.issuperset(table.columns)]
    if not known:
        nearest = max(_TABLES, key=lambda table: len(found.intersection(table.columns)))
        lacking = next(column for column in nearest.columns if column not in found)
        raise InvalidRequest(
            f"trace {name!r} lacks the column {lacking!r}", hint=f"its columns must be {nearest.columns}"
        )
    (table,) = known[:1]
    for i, row in enumerate(rows):
        with _in_place(f"line {rows.line_num} of trace {name!r}"):
            output = int(row[table.output])
            if not output and table.seconds is float:
                continue
            item = TraceItem(
                id=f"r{i}",
                arrival_s=table.seconds(row[table.time]),
                prompt_tokens=int(row[table.prompt]),
                output_tokens=output,
            )
        yield item


def _lines(lines: Iterable[str], name: str) -> Iterator[TraceItem]:
    spans: list[Span] = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        with _in_place(f"line {i + 1} of trace {name!r}"):
            row = json.loads(line)
            if is_telemetry(row):
                spans += spans_of(row)
                continue
            item = TraceItem(
                id=f"r{i}",
                arrival_s=float(row["timestamp"]) / 1000,
                prompt_tokens=int(row["input_length"]),
                output_tokens=int(row["output_length"]),
                segments=tuple((int(hash_id), MOONCAKE_BLOCK_TOKENS) for hash_id in row.get("hash_ids", ())),
            )
        yield item
    yield from telemetry_items(spans)


@contextmanager
def _in_place(where: str, remedy: str = "mend or remove that line") -> Iterator[None]:
    """Names the place of whatever is wrong in it."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}", hint=remedy) from None
    except UnicodeDecodeError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{where} is malformed", hint=_FORMATS) from error
