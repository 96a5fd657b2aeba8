"""ZipLM: columns go by what their matrix's outcome loses, and the columns that stay make up for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.spec import Attention
from pentad.execution.taps import Tap
from pentad.model.transforms.base import Unit
from pentad.model.transforms.hessian import damped
from pentad.model.transforms.structured import Kept, StructuredPruning
from pentad.model.transforms.widths import STEP

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLM(StructuredPruning):
    """Removes feed-forward columns by structured OBS; what stays is solved anew for the same outcome.

    Exactness: lossy; the metric is perplexity. Cost: three passes of the calibration text through each
    layer, and for each layer the inverse of its feed-forward's second moments, taken down step by step.

    Source: Kurtic et al., "ZipLM", NeurIPS'23, section 3.1. Our difference: columns go 32 at a time, layers
    are compared by their relative error for each parameter that goes, not for measured time, and
    nothing is distilled after it.
    """

    damping: float = 0.01
    """Share of the inputs' mean square that is added to all of them, above 0 to 1."""

    name: ClassVar[str] = "ziplm"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "second-moments"})

    def __post_init__(self) -> None:
        StructuredPruning.__post_init__(self)
        if not 0 < self.damping <= 1:
            raise InvalidRequest(
                f"damping is {self.damping}, must be above 0 to 1", hint="0.01 is usual", param="damping"
            )

    def column_scores(self, unit: Unit) -> Floats:
        """What the outcome's square loses with each column when its turn comes, relative to the whole."""
        matrix, moments = self._problem(unit, "down")
        energy = float(np.einsum("ij,ij->", matrix @ moments, matrix))
        return (elimination(matrix, moments, STEP) / max(energy, 1e-30)).astype(np.float32)

    def group_scores(self, unit: Unit) -> Floats:
        matrix, moments = self._problem(unit, "o")
        assert unit.layer is not None
        mixer = unit.spec.blocks[unit.layer].mixer
        assert isinstance(mixer, Attention)
        inverse = np.linalg.inv(moments)
        groups = np.arange(matrix.shape[1]).reshape(mixer.kv_heads, -1)
        return np.array([_loss(matrix, inverse, group) for group in groups], np.float32)

    def narrowed(self, matrix: Floats, kept: Kept, tap: Tap) -> tuple[Floats, Floats | None]:
        assert tap.gram is not None, "its need is declared"
        moments = damped(tap.gram, self.damping)
        solved = np.linalg.solve(moments[np.ix_(kept, kept)], moments[kept] @ matrix.T.astype(np.float64))
        return np.ascontiguousarray(solved.T, np.float32), None

    def _problem(self, unit: Unit, part: str) -> tuple[Doubles, Doubles]:
        """The matrix [out, in] and the damped second moments of what enters it [in, in]."""
        name = f"layers.{unit.layer}.{part}"
        gram = unit.taps[name].gram
        assert gram is not None, "its need is declared"
        return unit.values(name).astype(np.float64), np.asarray(damped(gram, self.damping), np.float64)


def elimination(matrix: Doubles, moments: Doubles, step: int) -> Doubles:
    """What each column costs when `step` at a time are taken, cheapest alone first: [in], never falling.

    A step's cost is exact for its columns together, shared among them; it includes that what stays makes
    up for them.
    """
    left, inverse = matrix.copy(), np.linalg.inv(moments)
    alive = np.arange(matrix.shape[1])
    costs = np.empty(matrix.shape[1])
    highest = 0.0
    while alive.size:
        alone = np.square(left).sum(0) / np.diagonal(inverse)
        gone = np.sort(np.argsort(alone, kind="stable")[:step])
        highest = max(highest, _loss(left, inverse, gone) / gone.size)
        costs[alive[gone]] = highest
        stay = np.setdiff1d(np.arange(alive.size), gone)
        taken = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[np.ix_(gone, stay)])
        left = left[:, stay] - left[:, gone] @ taken
        inverse = inverse[np.ix_(stay, stay)] - inverse[np.ix_(stay, gone)] @ taken
        alive = alive[stay]
    return costs


def _loss(matrix: Doubles, inverse: npt.NDArray[Any], gone: npt.NDArray[Any]) -> float:
    """What the outcome's square loses without some columns, the others making up for them."""
    part = matrix[:, gone]
    return float(np.einsum("ij,ji->", part, np.linalg.solve(inverse[np.ix_(gone, gone)], part.T)))
