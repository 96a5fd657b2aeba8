"""The second moments of a layer's inputs as methods use them that make up for an error elsewhere.

With H = X^T X of what enters a matrix, changing its weights by D changes what it gives by tr(D H D^T) in
square. When one weight of a row is fixed at another value, the best the row's other weights can do about
it follows from the inverse of H (OBS); the Cholesky factor of that inverse has in row i just what the
weights behind column i are to take on.
"""

from __future__ import annotations

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.formats.base import Floats


def damped(gram: Floats, damping: float) -> Floats:
    """H with `damping` times its mean diagonal added; columns that nothing ever entered count 1."""
    found = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", found)
    diagonal[diagonal <= 0] = 1.0
    diagonal += damping * diagonal.mean()
    return found  # type: ignore[return-value]


def inverse_factor(gram: Floats, damping: float) -> Floats:
    """The upper Cholesky factor U of the inverse of damped H: inverse = U^T U, [in, in].

    When column i of a row is off by e, columns j > i take on e * U[i, j] / U[i, i] (GPTQ, SparseGPT).

    Raises Incompatible where the inputs span too little for the damping.
    """
    try:
        inverse = np.linalg.inv(damped(gram, damping))
        factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    except np.linalg.LinAlgError:
        raise Incompatible(
            "the second moments of the calibration text cannot be inverted",
            hint="set the method's damping higher or calibrate on a longer text",
        ) from None
    return np.ascontiguousarray(factor, dtype=np.float32)


def output_error(change: Floats, gram: Floats) -> float:
    """The sum of squares by which a change of a matrix [out, in] changes what it gives."""
    return float(np.einsum("ij,ij->", change @ gram, change))
