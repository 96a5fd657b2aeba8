"""Mixed sparsity: matrices that the model is sensitive to lose less; saliencies of OBS and OBD together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, Self

import numpy as np

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import Unit, written
from pentad.model.transforms.hessian import damped
from pentad.model.transforms.sparsegpt import SparseGPT
from pentad.model.transforms.survey import Survey

Shares = tuple[tuple[str, float], ...]
"""Canonical name and sparsity of every matrix."""

_MOST: Final = 0.99
"""No matrix goes whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSparsity(SparseGPT):
    """Prunes as SparseGPT, matrices of low sensitivity more than others, the share of all weights as asked.

    A weight's saliency is w^2 / [H^-1] + w^2 [H]: what it costs with and without compensation.

    Exactness: lossy; the metric is perplexity. Cost: that of SparseGPT and one more pass of the text
    through all layers; with `sensitivity=loss` also a backward pass.

    Source: Shao et al., "One-Shot Sensitivity-Aware Mixed Sparsity Pruning for Large Language Models",
    ICASSP'24, sections 2.2 and 2.3. Our difference: shares fall evenly with the rank of the trace, which
    may be that of the loss's own Hessian (mean squared gradients).
    """

    spread: float = 0.1
    """How far the sparsity of the least and most sensitive matrix lies from the middle, 0 to below 0.5."""
    sensitivity: Literal["loss", "inputs"] = "loss"
    """Whose Hessian's mean trace: the loss's, or that of each matrix's own output."""
    shares: Shares = ()
    """Sparsity by canonical name; empty: found by sensitivity."""

    name: ClassVar[str] = "mixed-sparsity"

    def __post_init__(self) -> None:
        SparseGPT.__post_init__(self)
        if not 0 <= self.spread < 0.5:
            raise InvalidRequest(
                f"spread is {self.spread}, must be 0 to below 0.5", hint="0.1 is usual", param="spread"
            )
        if self.pattern:
            raise Incompatible(
                f"a pattern of {self.pattern} leaves no sparsity to mix",
                hint="choose sparsegpt for patterns",
                param="pattern",
            )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        gradients = {"gradients"} if self.sensitivity == "loss" and not self.shares else set[str]()
        return frozenset({"calibration", "second-moments"} | gradients)

    def importance(self, gram: Floats, factor: Floats) -> Floats:
        compensated = 1 / np.square(np.diagonal(factor))
        plain: Floats = np.diagonal(damped(gram, self.damping)).astype(np.float32)
        return np.asarray(compensated + plain, np.float32)

    def plan(self, survey: Survey) -> Self:
        """With the sparsity of every matrix."""
        if self.shares:
            return self
        sensitivities: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for unit in survey.units():
            for name in unit.matrices():
                tap = unit.taps[name]
                sizes[name] = int(np.prod(unit.source.tensor(name).shape))
                if self.sensitivity == "loss":
                    assert tap.gradient is not None, "its need is declared"
                    sensitivities[name] = float(tap.gradient.square_sum.mean())
                else:
                    sensitivities[name] = float(tap.square_sum.mean()) / tap.rows
        names = sorted(sensitivities, key=lambda name: (sensitivities[name], name))
        found = spread_shares([sizes[name] for name in names], self.sparsity, self.spread)
        return replace(self, shares=tuple(zip(names, found, strict=True)))

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        shares = dict(self.shares)
        found = {}
        for name in unit.matrices():
            plain = replace(self, sparsity=shares.get(name, self.sparsity))
            values = plain.matrix(unit.values(name), unit.taps.get(name))
            found[name] = written(name, values, self._format(unit, name))
        return found


def spread_shares(sizes: Sequence[int], sparsity: float, spread: float) -> list[float]:
    """Shares that fall evenly from first to last, so that together they are `sparsity` of all sizes."""
    raw = np.linspace(spread, -spread, len(sizes)) if len(sizes) > 1 else np.zeros(len(sizes))
    weights = np.asarray(sizes, np.float64) / sum(sizes)
    low, high = -1.0, 2.0  # what is cut off at an end goes to the others: all are moved alike
    for _ in range(60):
        middle = (low + high) / 2
        found = np.clip(raw + middle, 0, _MOST)
        low, high = (low, middle) if weights @ found > sparsity else (middle, high)
    return [round(float(share), 6) for share in found]
