"""Frequencies of rotary positions with their scalings, for every kernel alike."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pentad.execution.spec import Rope, RopeScaling

Float64 = npt.NDArray[np.float64]


def inverse_frequencies(rope: Rope) -> npt.NDArray[np.float32]:
    """[dim / 2] radians per position of each pair, computed in double precision.

    Source: Su et al. 2021; Llama 3.1's reference code for `llama3`; Chen et al. 2023 for `linear`;
    Peng et al. 2023, section 3.2, for `yarn`, whose factor of the scores is `magnitude`.
    """
    frequencies = 1.0 / (rope.base ** (np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim))
    if rope.frequency_factors is not None:
        frequencies = frequencies / np.array(rope.frequency_factors, dtype=np.float64)
    elif rope.scaling is not None:
        match rope.scaling.kind:
            case "linear":
                frequencies = frequencies / rope.scaling.factor
            case "llama3":
                frequencies = _llama3(frequencies, rope.scaling)
            case "yarn":
                frequencies = _yarn(frequencies, rope, rope.scaling)
    return frequencies.astype(np.float32)


def half_order(heads: int, head_dim: int, rope: Rope) -> npt.NDArray[np.int64] | None:
    """Row order that brings interleaved pairs apart into halves; None when they lie so already.

    Reordering query and key rows alike leaves every score unchanged, so that the rotation has
    one form. Rows beyond `rope.dim` keep their place.
    """
    if rope.pairing == "half":
        return None
    within = np.arange(head_dim)
    within[: rope.dim] = np.concatenate((np.arange(0, rope.dim, 2), np.arange(1, rope.dim, 2)))
    order: npt.NDArray[np.int64] = (np.arange(heads)[:, None] * head_dim + within).reshape(-1)
    return order


def _llama3(frequencies: Float64, scaling: RopeScaling) -> Float64:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    wavelengths = 2 * math.pi / frequencies
    low = scaling.original_context / scaling.low_freq_factor
    high = scaling.original_context / scaling.high_freq_factor
    spread = scaling.high_freq_factor - scaling.low_freq_factor
    smooth = (scaling.original_context / wavelengths - scaling.low_freq_factor) / spread
    between = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    scaled = np.where(wavelengths > low, frequencies / scaling.factor, frequencies)
    return np.where((wavelengths <= low) & (wavelengths >= high), between, scaled)


def _yarn(frequencies: Float64, rope: Rope, scaling: RopeScaling) -> Float64:
    """Pairs that turn often in the trained context are kept, those that hardly turn stretched by `factor`."""

    def pair_of(turns: float) -> float:
        """Which pair turns so often in the trained context."""
        wavelength = scaling.original_context / (turns * 2 * math.pi)
        return rope.dim * math.log(wavelength) / (2 * math.log(rope.base))

    first, last = pair_of(scaling.fast_turns), pair_of(scaling.slow_turns)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0), min(last, rope.dim - 1)
    stretched = np.clip((np.arange(len(frequencies)) - low) / max(high - low, 0.001), 0, 1)
    found: Float64 = frequencies * (1 - stretched) + frequencies / scaling.factor * stretched
    return found
