"""How many feed-forward columns each layer keeps, so that together so many parameters go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible
from pentad.execution.formats.base import Floats
from pentad.execution.layers import FeedForward
from pentad.execution.spec import ModelSpec

Numbers = npt.NDArray[np.float64] | npt.NDArray[np.int64]
STEP: Final = 32
"""Widths are multiples of it: whole blocks of the formats, whole lanes of the kernels."""


def common_width(spec: ModelSpec, budget: int) -> int:
    """The width that every layer keeps. Raises Incompatible where feed-forwards have too little to lose."""
    least = min(_inner(spec, i).width for i in range(spec.layers))
    lost = budget / sum(_column_parameters(spec, i) for i in range(spec.layers))
    _check(spec, least - lost)
    return min(least, max(STEP, round((least - lost) / STEP) * STEP))


def shared_widths(spec: ModelSpec, scores: Sequence[Floats], budget: int) -> tuple[int, ...]:
    """Widths that leave the columns of highest score over all layers; no layer goes below `STEP`.

    Args:
        scores: of each layer's columns, on one scale: [F] each.
    """
    owners = np.concatenate([np.full(len(each), i) for i, each in enumerate(scores)])
    order = np.argsort(np.concatenate(scores), kind="stable")
    costs = np.array([_column_parameters(spec, i) for i in range(spec.layers)])
    _check(spec, float(sum(len(s) for s in scores) - budget / costs.mean()) / spec.layers)
    left = np.array([len(each) for each in scores])
    exact = left.astype(np.float64)
    spent = 0
    for owner in owners[order]:
        if spent >= budget:
            break
        if exact[owner] > STEP:
            exact[owner] -= 1
            spent += int(costs[owner])
    return _rounded(exact, left, costs, budget)


def _rounded(exact: Numbers, whole: Numbers, costs: Numbers, budget: int) -> tuple[int, ...]:
    """Multiples of `STEP` near `exact` that lose about the budget: what lacks most is rounded up first."""
    widths = np.minimum(np.maximum(STEP, np.floor(exact / STEP).astype(int) * STEP), whole)
    for i in np.argsort(widths - exact, kind="stable"):
        if ((whole - widths) @ costs) - budget < STEP * costs[i] / 2:
            break
        widths[i] = min(widths[i] + STEP, whole[i])
    return tuple(int(width) for width in widths)


def _check(spec: ModelSpec, left: float) -> None:
    if left < STEP:
        raise Incompatible(
            f"the feed-forwards of model {spec.name!r} do not have so many parameters to lose",
            hint="set ratio lower, or kv_heads",
            param="ratio",
        )


def _inner(spec: ModelSpec, layer: int) -> FeedForward:
    inner = spec.blocks[layer].feed_forward
    assert isinstance(inner, FeedForward), "checked before"
    return inner


def _column_parameters(spec: ModelSpec, layer: int) -> int:
    inner = _inner(spec, layer)
    matrices = 3 if inner.gated else 2
    return matrices * spec.width + (matrices - 1 if inner.bias else 0)
