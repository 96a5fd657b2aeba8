"""Shapes of a layer's tensors, by name."""

from __future__ import annotations

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
"""Tensor name within its layer to its shape; matrices are [out, in]."""


def at_least_one(name: str, value: int) -> None:
    """Raises ValueError."""
    if value < 1:
        raise ValueError(f"{name} is {value}, must be at least 1")
