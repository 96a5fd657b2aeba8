"""How the states of a text become one vector, and such a vector scores, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pentad.execution.mixers import Norm, Shapes, at_least_one

Pooling: TypeAlias = Literal["mean", "cls", "last"]
"""Of a text's states: their mean, the first token's, or the last one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """Scores of a text: out(norm(activation(dense(pooled states))))."""

    labels: int = 1
    pooling: Pooling = "cls"
    hidden: bool = True
    """Whether it has the dense layer; without, its last matrix reads the pooled states."""
    hidden_bias: bool = True
    activation: Literal["tanh", "relu", "gelu"] = "tanh"
    norm: Norm | None = None

    def __post_init__(self) -> None:
        at_least_one("labels", self.labels)

    def shapes(self, width: int) -> Shapes:
        """Its tensors, in a model of that width."""
        found: Shapes = {}
        if self.hidden:
            found["classifier.dense"] = (width, width)
            if self.hidden_bias:
                found["classifier.dense.bias"] = (width,)
        if self.norm is not None:
            found |= self.norm.shapes("classifier.norm", width)
        return found | {"classifier": (self.labels, width), "classifier.bias": (self.labels,)}
