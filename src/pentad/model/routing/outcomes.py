"""Recorded outcomes: which models answered which requests right, as files hold them."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.model.routing.success import LONGEST_CHARS, Embed, Lessons, Question

_FORM = 'give JSON lines like {"prompt": "2+2?", "outcomes": {"small": 1, "large": 1}}'
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request and how right each model was that answered it, 0 to 1."""

    prompt: str
    right: Mapping[str, float]
    vector: tuple[float, ...] | None = None
    """Of the prompt, where somebody keeps it in its place."""
    said: Mapping[str, float] = field(default_factory=dict)
    """The chances that an estimate gave, by model."""
    estimate: str = ""
    """Which estimate that was."""


def read_outcomes(path: pathlib.Path) -> list[Outcome]:
    """The outcomes of a file of JSON lines, of a table (.csv: `prompt`, then a column for each model with
    True or False, as RouteLLM publishes them), or of all such files of a folder, by their names.

    Raises InvalidRequest, naming file and line, for anything else.
    """
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in (".csv", ".jsonl"))
    if not files or not all(one.is_file() for one in files):
        raise InvalidRequest(f"there are no outcomes at {str(path)!r}", hint=_FORM, param="outcomes")
    found = [one for file in files for one in (_table(file) if file.suffix == ".csv" else _lines(file))]
    if not found:
        raise InvalidRequest(f"{str(path)!r} has no outcome", hint=_FORM, param="outcomes")
    return found


def outcome_of(value: Any, place: str) -> Outcome:
    """One line's value. Raises InvalidRequest naming the place."""
    if isinstance(value, dict) and isinstance(value.get("prompt"), str):
        right, vector = value.get("outcomes"), value.get("vector")
        if isinstance(right, dict) and right and all(_is_share(one) for one in right.values()):
            numbers = None if vector is None else tuple(float(one) for one in vector)
            shares = {str(name): float(one) for name, one in right.items()}
            said, estimate = value.get("said") or {}, str(value.get("estimate") or "")
            if isinstance(said, dict) and all(_is_share(one) for one in said.values()):
                return Outcome(
                    prompt=value["prompt"], right=shares, vector=numbers, said=said, estimate=estimate
                )
    raise InvalidRequest(f"{place} is no outcome", hint=_FORM, param="outcomes")


def lessons_of(outcomes: Sequence[Outcome], embed: Embed | None) -> Lessons:
    """The same for an estimator, with vectors where `embed` makes them; equal texts are embedded once."""
    models = tuple(dict.fromkeys(name for one in outcomes for name in one.right))
    right = np.array([[one.right.get(name, np.nan) for name in models] for one in outcomes])
    texts = [one.prompt.strip()[:LONGEST_CHARS] for one in outcomes]
    missing = list(dict.fromkeys(t for t, one in zip(texts, outcomes, strict=True) if t and not one.vector))
    vectors: dict[str, tuple[float, ...]] = {}
    for start in range(0, len(missing) if embed is not None else 0, _AT_ONCE):
        assert embed is not None
        part = missing[start : start + _AT_ONCE]
        vectors |= {text: tuple(row) for text, row in zip(part, embed(part), strict=True)}
    questions = [
        Question(text=text, vector=one.vector or vectors.get(text))
        for text, one in zip(texts, outcomes, strict=True)
    ]
    return Lessons(models=models, questions=questions, right=right)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _lines(file: pathlib.Path) -> Iterator[Outcome]:
    with file.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    value = parse_json(line)
                except ValueError:
                    value = None
                yield outcome_of(value, f"{file}:{number}")


def _table(file: pathlib.Path) -> Iterator[Outcome]:
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream)
        head = next(rows, [])
        for row in rows:
            if head[:1] != ["prompt"] or len(row) != len(head) or len(head) < 2:
                raise InvalidRequest(f"{file}:{rows.line_num} is no outcome", hint=_FORM, param="outcomes")
            right = {name: float(told == "True") for name, told in zip(head[1:], row[1:], strict=True)}
            yield Outcome(prompt=row[0], right=right)
