"""Pooled states of texts, and the scores that a classifier makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.classifier import Classifier, Pooling
from pentad.execution.torch.linear import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierWeights:
    """Of one classifier."""

    record: Classifier
    dense: Linear | None
    norm: tuple[torch.Tensor, torch.Tensor | None] | None
    """Scale and shift [E]."""
    out: Linear

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores [B, labels] of pooled states [B, E]."""
        x = pooled
        if self.dense is not None:
            x = _ACTIVATIONS[self.record.activation](self.dense(x))
        if self.norm is not None:
            assert self.record.norm is not None
            scale, shift = self.norm
            x = F.layer_norm(x, scale.shape, scale, shift, self.record.norm.eps)
        return self.out(x)


_ACTIVATIONS = {"tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu}


def pooled(states: Sequence[torch.Tensor], pooling: Pooling) -> torch.Tensor:
    """One row for each text's states [T, E]: [B, E]."""
    match pooling:
        case "mean":
            return torch.stack([text.mean(0) for text in states])
        case "cls":
            return torch.stack([text[0] for text in states])
        case "last":
            return torch.stack([text[-1] for text in states])
