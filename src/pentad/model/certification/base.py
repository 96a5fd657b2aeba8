"""What a certificate measures: metrics, the probes that give their rows, and the two models.

    probe   runs both models on one piece of work after another   -> rows, kept as they come
    metric  reads all rows of its probe                           -> a value with its interval

Metrics of one probe share its rows, so that a text is read once for perplexity, divergence and agreement.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pentad.errors import Incompatible
from pentad.execution.runner import Runner
from pentad.model.intervals import paired_bootstrap
from pentad.model.loading import ModelFiles
from pentad.model.stored import StoredModel
from pentad.ranges import in_range
from pentad.resource.energy import EnergyMeter
from pentad.types import Clock

Row = Mapping[str, float]
"""Numbers of one piece of work, of both models."""
Better = Literal["lower", "higher"]
BOOTSTRAP = "95%, paired bootstrap over {what}"
EXACT = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value with its interval."""

    value: float
    low: float
    high: float
    interval: str
    """What the bounds are, in words."""
    count: int
    """Pieces of work that it rests on."""
    source: float | None = None
    """The same of the source, where it has one."""
    basis: str = ""
    """What it rests on beside the rows, where that matters."""


class Subject(Protocol):
    """One of the two models."""

    @property
    def stored(self) -> StoredModel: ...

    @property
    def files(self) -> ModelFiles: ...

    def runner(self) -> Runner:
        """In memory from the first call on, one sequence at a time."""
        ...


class Tasks(Protocol):
    """Runs cases of a suite of tasks with a model."""

    def cases(self, suite: str, limit: int) -> int:
        """How many there are, at most `limit`. Raises InvalidRequest where the data are not there."""
        ...

    def digest(self, suite: str) -> str:
        """The SHA-256 of the suite's data files together."""
        ...

    def score(self, suite: str, place: int, limit: int, model: str, *, usual: bool) -> float:
        """1 where that case of the first `limit` is solved, else 0.

        Args:
            usual: whether the model is served under the usual settings, as sources are.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What probes measure with."""

    source: Subject
    derived: Subject
    windows: Sequence[Sequence[int]]
    """Tokens of the evaluation text, in windows of one length; none where no text is given."""
    text_sha256: str
    """Of the whole text; empty where none is given."""
    tasks: Tasks
    meter: EnergyMeter
    clock: Clock
    seed: int


class Probe(Protocol):
    """Work that gives rows. Equal probes give equal rows, as far as they measure no time."""

    @property
    def key(self) -> str:
        """Names the probe and all that decides its rows beside the models."""
        ...

    def units(self, bench: Bench) -> int:
        """Pieces of work. Raises InvalidRequest or Incompatible where what it needs is not given."""
        ...

    def measure(self, bench: Bench, unit: int) -> Row:
        """The row of one piece."""
        ...

    def data(self, bench: Bench) -> Mapping[str, str]:
        """SHA-256 of the evaluation data, by what they are called."""
        ...


class Metric(Protocol):
    """What is told of a model in one number with its interval."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str:
        """Of the value; empty for a ratio or a share."""
        ...

    @property
    def better(self) -> Better: ...

    @property
    def timed(self) -> bool:
        """Whether it differs from run to run with the machine's load, so that a check does not judge it."""
        ...

    @property
    def probe(self) -> Probe: ...

    def value(self, rows: Sequence[Row]) -> Measured:
        """Of all rows of the probe; at least one."""
        ...


def bootstrapped(
    rows: Sequence[Row],
    of: Callable[[Sequence[Row]], float],
    *,
    what: str,
    source: float | None = None,
    basis: str = "",
) -> Measured:
    """The usual metric: a statistic of the rows, with the paired bootstrap over them."""
    low, high = paired_bootstrap(rows, of)
    return Measured(
        value=of(rows),
        low=low,
        high=high,
        interval=BOOTSTRAP.format(what=what),
        count=len(rows),
        source=source,
        basis=basis,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationText:
    """A file of text, of which windows spread evenly over it are read."""

    path: pathlib.Path
    windows: int = 16
    window_tokens: int = 256

    def __post_init__(self) -> None:
        in_range("windows", self.windows, least=1, most=10**6)
        in_range("window_tokens", self.window_tokens, least=2, most=10**6)

    def cut(self, files: ModelFiles, text: str) -> list[list[int]]:
        """The windows, each with the token that begins texts where the model wants one.

        Raises Incompatible for a text that is too short, or windows that are longer than the model's context.
        """
        length = self.window_tokens
        if length > files.spec.context_length:
            raise Incompatible(
                f"windows of {length} tokens are longer than the context of {files.spec.context_length}",
                hint="set --window-tokens lower",
                param="window_tokens",
            )
        first = [files.bos_token] if files.add_bos and files.bos_token is not None else []
        own = length - len(first)
        tokens = files.tokenizer.encode(text, special=False)
        if len(tokens) < self.windows * own:
            raise Incompatible(
                f"the evaluation text has {len(tokens)} tokens, {self.windows} windows of {own} need "
                f"{self.windows * own}",
                hint="give a longer text or set --windows lower",
                param="text",
            )
        stride = len(tokens) // self.windows
        return [[*first, *tokens[i * stride : i * stride + own]] for i in range(self.windows)]
