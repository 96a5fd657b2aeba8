"""InputRule: how what enters a matrix is rounded, where a method rounds more than weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """Numbers x of column j become `offset[j] + scale[j] * code`, codes from 0 to 2 ** bits - 1.

    Without scales they are found for each token: from its largest number, symmetric around 0.
    """

    bits: int
    scale: Floats | None = None
    """[in]; equal where columns share one."""
    offset: Floats | None = None
    """[in]"""

    @property
    def per_token(self) -> bool:
        """Whether each token has a scale of its own."""
        return self.scale is None


InputRules = Mapping[str, InputRule]
"""By canonical name of the matrix."""


def fixed(low: Floats, high: Floats, bits: int) -> InputRule:
    """A rule whose codes reach from `low` to `high` of each column, 0 among them where it lies between."""
    span = np.maximum(high - low, np.float32(1e-8))
    scale = span / np.float32((1 << bits) - 1)
    inside = (low < 0) & (high > 0)
    offset = np.where(inside, np.rint(low / scale) * scale, low)
    return InputRule(bits=bits, scale=scale.astype(np.float32), offset=offset.astype(np.float32))


def one_range(low: Floats, high: Floats, bits: int) -> InputRule:
    """A rule with one scale for all columns."""
    return fixed(np.full_like(low, low.min()), np.full_like(high, high.max()), bits)


def rounded_inputs(x: Floats, rule: InputRule) -> Floats:
    """Rows [N, in] as the rule rounds them."""
    most = np.float32((1 << rule.bits) - 1)
    if rule.scale is None or rule.offset is None:
        top = np.float32((1 << (rule.bits - 1)) - 1)
        scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-8)) / top
        found: Floats = np.clip(np.rint(x / scale), -top - 1, top) * scale
        return found
    codes = np.clip(np.rint((x - rule.offset) / rule.scale), 0, most)
    numbers: Floats = rule.offset + rule.scale * codes
    return numbers
