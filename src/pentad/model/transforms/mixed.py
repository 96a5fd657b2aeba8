"""Mixed precision: each layer in the format that its measured sensitivity is worth, under a size budget."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.quant import dequantize, stored_bytes
from pentad.execution.rounding.grid import Grid
from pentad.execution.rounding.table import GRIDS, fitting
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import TensorFormat, WeightSource
from pentad.model.transforms.base import ModelTransform, Overlay, Unit
from pentad.model.transforms.importance import Importance
from pentad.model.transforms.quantizing import CompensatedQuantizer
from pentad.model.transforms.round_to_nearest import RoundToNearest
from pentad.model.transforms.survey import Survey

_WINDOWS: Final = 4
_WINDOW_TOKENS: Final = 128
"""Of each of the first windows, which the survey runs through the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(CompensatedQuantizer):
    """Gives layers that matter more a format of more bits, so that all together stay under a budget.

    First each layer alone is rounded to the smallest format, and the divergence of the predictions on the
    calibration text measured; a larger format divides it by what its squared error is less. Then, as long
    as there is room, the layer gains its next format whose divergence falls most for its bytes.

    Exactness: lossy; the metric is perplexity. Cost: as gptq, and for the survey half as many passes of
    a short text through the model as it has layers.

    Source: Dong et al., "HAWQ-V2", NeurIPS'20, section 3 (a greedy choice by sensitivity); ours
    measures divergence where it has traces of the Hessian.
    """

    formats: tuple[TensorFormat, ...] = ("Q4_0", "Q5_0", "Q8_0")
    """To choose from, the smallest first."""
    target_bytes: int = 0
    """Most bytes of the whole model's tensors; 0: `average_bits` holds."""
    average_bits: float = 5.0
    """Bits of a weight of the layers' matrices, scales included, on average."""
    layer_formats: tuple[TensorFormat, ...] = ()
    """The format of each layer; found by the survey where it is left out."""

    name: ClassVar[str] = "mixed"

    def __post_init__(self) -> None:
        CompensatedQuantizer.__post_init__(self)
        unknown = [f for f in (*self.formats, *self.layer_formats) if f not in GRIDS]
        if unknown or not self.formats or self.bits:
            raise InvalidRequest(
                f"formats are {', '.join(self.formats) or 'none'}",
                hint=f"choose from {', '.join(GRIDS)}, and leave bits out",
                param="formats",
            )

    def grid(self, unit: Unit, name: str, columns: int) -> Grid | TensorFormat:
        del name
        format = fitting(self.of_layer(unit), columns)
        return GRIDS.get(format, format)

    def of_layer(self, unit: Unit) -> TensorFormat:
        """The layer's format; the first where no survey was made."""
        return (
            self.layer_formats[unit.layer]
            if self.layer_formats and unit.layer is not None
            else self.formats[0]
        )

    def plan(self, survey: Survey) -> Self:
        """The same with the layers' formats. Raises Infeasible where the budget is below the smallest's."""
        if self.layer_formats:
            return self
        spec, source = survey.spec, survey.source
        sizes = [
            [_matrix_bytes(spec, source, layer, f) for f in self.formats] for layer in range(spec.layers)
        ]
        moved = divergences(survey, Importance(format=self.formats[0]))
        ratios = _error_ratios(spec, source, self.formats)
        costs = [[divergence * ratio for ratio in ratios] for divergence in moved]
        budget = self._budget(spec, source)
        chosen = allocate(costs, sizes, budget)
        return dataclasses.replace(self, layer_formats=tuple(self.formats[i] for i in chosen))

    def _budget(self, spec: ModelSpec, source: WeightSource) -> int:
        """Bytes of the layers' matrices."""
        matrices = {n for i in range(spec.layers) for n in Unit(spec=spec, layer=i, source=source).matrices()}
        if not self.target_bytes:
            weights = sum(_numbers(source, name) for name in matrices)
            return int(weights * self.average_bits / 8)
        others = (source.tensor(name) for name in source.names() if name not in matrices)
        return self.target_bytes - sum(stored_bytes(t.format, t.shape) for t in others)


def divergences(survey: Survey, transform: ModelTransform) -> list[float]:
    """How far predictions of a short text move when one layer alone is in the transform's form.

    Cost: half as many passes of the text through the model as it has layers.
    """
    assert survey.walk is not None, "the need of calibration is declared"
    spec, source = survey.spec, survey.source
    exact, before = (survey.walk.again(_WINDOWS, _WINDOW_TOKENS) for _ in range(2))
    for layer in range(spec.layers):
        exact.advance(layer, spec, source)
    found = []
    for layer in range(spec.layers):
        taps = before.taps(layer, source, second_moments=False)
        unit = Unit(spec=spec, layer=layer, source=source, taps=taps)
        there = before.fork()
        there.advance(layer, spec, Overlay(source, transform.rewrite(unit)))
        for later in range(layer + 1, spec.layers):
            there.advance(later, spec, source)
        found.append(there.compared(exact).divergence)
        before.advance(layer, spec, source)
    return found


def allocate(costs: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], budget: int) -> list[int]:
    """Which choice each row gets, so that the sum of sizes stays within the budget and costs are low.

    Greedy from each row's first choice: the step of largest gain for its bytes that still fits.
    Raises Infeasible where the first choices alone are too large.
    """
    chosen = [0] * len(costs)
    used = sum(row[0] for row in sizes)
    if used > budget:
        raise Infeasible(
            f"the smallest choice takes {used} bytes in the layers' matrices, {max(budget, 0)} are allowed",
            hint="allow more bytes or bits, or name a smaller format",
            param="target_bytes",
        )
    steps: list[tuple[float, int, int]] = []

    def offer(row: int, start: int) -> None:
        for to in range(start + 1, len(costs[row])):
            more = sizes[row][to] - sizes[row][start]
            if more > 0 and costs[row][to] < costs[row][start]:
                heapq.heappush(steps, ((costs[row][to] - costs[row][start]) / more, row, to))

    for row in range(len(costs)):
        offer(row, 0)
    while steps:
        _, row, to = heapq.heappop(steps)
        more = sizes[row][to] - sizes[row][chosen[row]]
        if to > chosen[row] and used + more <= budget:
            used += more
            chosen[row] = to
            offer(row, to)
    return chosen


def _numbers(source: WeightSource, name: str) -> int:
    rows, columns = 1, 1
    for size in source.tensor(name).shape:
        rows, columns = rows * columns, size
    return rows * columns


def _matrix_bytes(spec: ModelSpec, source: WeightSource, layer: int, format: TensorFormat) -> int:
    """Of a layer's matrices in a format."""
    found = 0
    for name in Unit(spec=spec, layer=layer, source=source).matrices():
        shape = source.tensor(name).shape
        geometry = GEOMETRY[fitting(format, shape[-1])]
        found += _numbers(source, name) // geometry.elements * geometry.bytes
    return found


def _error_ratios(spec: ModelSpec, source: WeightSource, formats: Sequence[TensorFormat]) -> list[float]:
    """The squared error of each format in that of the first, on a matrix of the middle layer."""
    unit = Unit(spec=spec, layer=spec.layers // 2, source=source)
    name = next(iter(unit.matrices()))
    values = unit.values(name)
    errors = []
    for format in formats:
        made = RoundToNearest(format=format, search=True).matrix(unit, name)
        errors.append(float(((dequantize(made) - values) ** 2).sum()))
    return [error / max(errors[0], 1e-30) for error in errors]
