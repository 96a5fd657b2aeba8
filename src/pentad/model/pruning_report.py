"""What pruning took from a model: layer by layer, by what it can still do, and token by token."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Floats
from pentad.execution.quant import dequantize
from pentad.execution.weights import WeightSource
from pentad.model.intervals import bootstrap
from pentad.model.transforms.base import MATRICES

Losses = Callable[[Sequence[int]], npt.NDArray[np.float64]]
"""Nats of every token of a window but the first, under a model."""
_CLEARLY: Final = 1.5
"""A text stands out whose loss rose by so many times what others' rose by, beside its interval."""
_LEAST_TIMES: Final = 3
"""Tokens that come less often are not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixChange:
    """What is gone of a matrix."""

    name: str
    removed: float
    """Share of its weights that are gone or zero."""
    energy: float
    """Share of the square of its weights that went with them: small where they were worth little."""
    left_out: bool = False
    """Whether the whole layer is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChange:
    """What a text costs more than it did."""

    name: str
    before: float
    """Nats per token of the source."""
    rise: float
    """Nats per token more."""
    low: float
    high: float
    """Its 95% interval, bootstrap over windows."""
    flagged: bool
    """Whether it rose clearly more than what the other texts did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChange:
    """What a token costs more where it comes next."""

    token: int
    times: int
    rise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport:
    """What was removed and what changed."""

    matrices: tuple[MatrixChange, ...]
    texts: tuple[TextChange, ...]
    tokens: tuple[TokenChange, ...] = field(default=())
    """Those that rose most, over all texts."""


def matrix_changes(
    source: WeightSource, derived: WeightSource, layers: int, gone: Sequence[int] = ()
) -> Iterator[MatrixChange]:
    """Every matrix of the source's layers.

    Args:
        layers: of the source.
        gone: those of them that were left out.
    """
    kept = [i for i in range(layers) if i not in gone]
    for layer in range(layers):
        for part in MATRICES:
            name = f"layers.{layer}.{part}"
            if name not in set(source.names()):
                continue
            if layer in gone:
                yield MatrixChange(name=name, removed=1.0, energy=1.0, left_out=True)
                continue
            old = dequantize(source.tensor(name))
            new = dequantize(derived.tensor(f"layers.{kept.index(layer)}.{part}"))
            yield MatrixChange(name=name, removed=_removed(old, new), energy=_energy(old, new))


def _removed(old: Floats, new: Floats) -> float:
    before, after = int(np.count_nonzero(old)), int(np.count_nonzero(new))
    return max(0.0, 1 - after / max(before, 1))


def _energy(old: Floats, new: Floats) -> float:
    """Of weights at the same place, those that became zero; of a smaller matrix, by its own square."""
    whole = float(np.square(old, dtype=np.float64).sum())
    if old.shape == new.shape:
        lost = float(np.square(old[new == 0], dtype=np.float64).sum())
    else:
        lost = whole - float(np.square(new, dtype=np.float64).sum())
    return min(1.0, max(0.0, lost / max(whole, 1e-30)))


def text_changes(
    texts: Mapping[str, Sequence[Sequence[int]]], source: Losses, derived: Losses, *, tokens: int = 10
) -> tuple[tuple[TextChange, ...], tuple[TokenChange, ...]]:
    """What each text, given as windows of tokens, costs more, and the tokens that rose most.

    A text is flagged where the lower bound of its rise lies above the others' median rise, and its rise
    is half as much again.
    """
    before: dict[str, float] = {}
    rises: dict[str, list[float]] = {}
    by_token: dict[int, list[float]] = {}
    for name, windows in texts.items():
        first = [source(window) for window in windows]
        changes = [derived(w) - old for w, old in zip(windows, first, strict=True)]
        before[name] = float(np.concatenate(first).mean())
        rises[name] = [float(change.mean()) for change in changes]
        for window, change in zip(windows, changes, strict=True):
            for token, rise in zip(window[1:], change.tolist(), strict=True):
                by_token.setdefault(int(token), []).append(rise)
    means = {name: statistics.fmean(found) for name, found in rises.items()}
    found = tuple(_text(name, before[name], rises[name], means) for name in texts)
    often = {token: values for token, values in by_token.items() if len(values) >= _LEAST_TIMES}
    worst = sorted(often, key=lambda token: (-statistics.fmean(often[token]), token))[:tokens]
    return found, tuple(
        TokenChange(token=token, times=len(often[token]), rise=statistics.fmean(often[token]))
        for token in worst
    )


def _text(name: str, before: float, rises: Sequence[float], means: Mapping[str, float]) -> TextChange:
    low, high = bootstrap(rises)
    others = [mean for other, mean in means.items() if other != name]
    usual = max(0.0, statistics.median(others)) if others else 0.0
    flagged = bool(others) and low > usual and means[name] > _CLEARLY * usual
    return TextChange(name=name, before=before, rise=means[name], low=low, high=high, flagged=flagged)
