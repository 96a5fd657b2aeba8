"""Orthogonal matrices that turn a model's streams, and what turning does to how well codes are used."""

from __future__ import annotations

import numpy as np

from pentad.execution.formats.base import Floats


def orthogonal(size: int, seed: int) -> Floats:
    """A random orthogonal matrix [size, size] that spreads each channel over all: Hadamard where it divides.

    The largest power of two in the size is a Hadamard matrix with random signs; what is left is a random
    rotation (QR of normal numbers).
    """
    rng = np.random.default_rng(seed)
    power = size & -size
    hadamard = np.ones((1, 1))
    while len(hadamard) < power:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    hadamard = hadamard / np.sqrt(power) * rng.choice([-1.0, 1.0], power)
    rest, triangle = np.linalg.qr(rng.normal(size=(size // power, size // power)))
    rest = rest * np.sign(np.diag(triangle))
    return np.kron(rest, hadamard).astype(np.float32)


def space_use(gram: Floats, rows: int, low: Floats, high: Floats) -> float:
    """The logarithm of how much of the cube that codes span the inputs fill, for each dimension.

    The cube's side is the largest magnitude, the filled part the ellipsoid of the second moments.

    Source: OSTQuant (Hu et al., ICLR'25), section 3.1, equation 2 (QSUR), without the constant of the
    dimension, which all forms of a model share.
    """
    moments = np.linalg.eigvalsh(gram.astype(np.float64) / rows)
    spread = np.log(np.maximum(moments, moments.max() * 1e-12)).mean() / 2
    return float(spread - np.log(max(float(np.abs(low).max()), float(np.abs(high).max()), 1e-20)))
