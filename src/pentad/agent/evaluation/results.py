"""Results: one line of JSON per case, in a file that a killed evaluation goes on with."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from pentad.errors import InvalidRequest

Key = tuple[str, str, int, str, str, str]
"""Suite, case, seed, model, planner and coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What is evaluated: a model under strategies, as they are written."""

    model: str
    planner: str
    coordinator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What came of one case. Its fields are the keys of its line."""

    suite: str
    case: str
    seed: int
    model: str
    planner: str
    coordinator: str
    success: bool
    """Whether the score is 1."""
    score: float
    """0 to 1."""
    about: str
    """What the judge counted."""
    status: str
    """How the run ended."""
    steps: int
    model_calls: int
    """Of the run itself, without those of its sub-runs."""
    tool_calls: int
    tokens: int
    """Prompt and completion tokens, with those of sub-runs."""
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt tokens, those that were not computed again."""
    completion_tokens: int
    seconds: float
    joules: float | None
    """Of the processors while the case ran; null where the machine has no meter that can be read."""
    run: str
    """Id of the run in the journal."""
    error: str | None = None

    @property
    def key(self) -> Key:
        """What makes it this case and no other."""
        return (self.suite, self.case, self.seed, self.model, self.planner, self.coordinator)


class ResultFile:
    """Results so far, each written through to the disk as it comes.

    Args:
        path: created where it is not there; None keeps the results in memory only.

    Raises:
        InvalidRequest: the file holds something else. A last line that was cut by a kill is taken out.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self._path = path
        self._results = {} if path is None else _read(path)

    def of(self, keys: Collection[Key]) -> list[CaseResult]:
        """The results of those cases that are there, in the order asked."""
        return [self._results[key] for key in keys if key in self._results]

    def __contains__(self, key: Key) -> bool:
        return key in self._results

    def add(self, result: CaseResult) -> None:
        """Keeps one more. Raises OSError where the disk refuses."""
        if self._path is not None:
            with self._path.open("ab") as stream:
                stream.write(msgspec.json.encode(dataclasses.asdict(result)) + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        self._results[result.key] = result


def _read(path: pathlib.Path) -> dict[Key, CaseResult]:
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Key, CaseResult] = {}
    if not path.exists():
        return found
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            result: Any = msgspec.json.decode(line, type=CaseResult)
        except msgspec.DecodeError as error:
            raise InvalidRequest(
                f"{path}:{number} is no result of an evaluation: {error}",
                hint="give another --out, or remove that file",
                param="out",
            ) from None
        found[result.key] = result
    if len(whole) < len(data):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return found
