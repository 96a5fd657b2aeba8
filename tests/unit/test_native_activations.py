"""Activations of the native kernels against their formulas, closer than 8-bit products could tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from native_support import HERE
from pentad.execution.native.library import open_library
from pentad.execution.native.structs import ACTIVATIONS

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "relu_squared": lambda x: max(x, 0.0) ** 2,
    "silu": lambda x: x * sigmoid(x),
    "clamped": lambda x: min(x, 7.0) * sigmoid(1.702 * min(x, 7.0)),
}
X = np.concatenate(
    (np.linspace(-12, 12, 4000), [-80, -30, 0, 1e-6, -1e-6, 30, 80, 7, -7, 6.99, 7.01, 8, 9, 10, 11, 12])
)
X = X[: len(X) // 16 * 16].astype(np.float32)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name: str, kernels: str) -> None:
    found, up = np.empty_like(X), X[::-1].copy()
    activate = open_library(kernels).functions.pentad_activate
    activate(ACTIVATIONS[name], X.ctypes.data, None, len(X), found.ctypes.data)
    expected = np.array([FORMULAS[name](float(x)) for x in X])
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    activate(ACTIVATIONS[name], X.ctypes.data, up.ctypes.data, len(X), found.ctypes.data)
    beside = np.clip(up, -7, 7) + 1 if name == "clamped" else up
    np.testing.assert_allclose(found, expected * beside, rtol=2e-6, atol=3e-5)
