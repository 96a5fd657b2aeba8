"""What a model transform is: a spec and weights in, a spec and weights out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource
from pentad.types import Decision

Exactness = Literal["lossless", "bounded", "lossy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformed:
    """A model in its new form. Its weights are made when they are read; nothing is stored."""

    spec: ModelSpec
    weights: WeightSource
    decision: Decision
    """What was chosen among the forms that this model allows."""


class ModelTransform(Protocol):
    """Turns a model into another form of itself (coverage.md, interface 8)."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be at hand beside the model, e.g. `calibration`."""
        ...

    def target(self, spec: ModelSpec) -> ModelSpec:
        """The form that the transform would give; its sizes are what a planner compares.

        Raises Incompatible for a model that the transform does not apply to.
        """
        ...

    def apply(self, spec: ModelSpec, weights: WeightSource) -> Transformed:
        """The model in its new form. The source stays as it was, and must outlive the result."""
        ...
