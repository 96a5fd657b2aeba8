"""LLM-Pruner: coupled structures go whole, by what the loss would change without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.model.transforms.base import Unit
from pentad.model.transforms.structured import StructuredPruning, by_group


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMPruner(StructuredPruning):
    """Removes the feed-forward columns and key/value heads that the loss hangs on least.

    A column is what gate, up and down have of it; a head is its keys and values with all queries that
    read them. Its worth is the sum over its weights of |weight times gradient|.

    Exactness: lossy; the metric is perplexity; training by `low-rank` wins part of it back. Cost: a
    forward and a backward pass of the calibration text through the whole model.

    Source: Ma et al., "LLM-Pruner", NeurIPS'23, sections 3.1 and 3.2, first-order element-wise Taylor.
    Our difference: columns are compared over all layers, none of which is kept whole.
    """

    name: ClassVar[str] = "llm-pruner"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})

    def column_scores(self, unit: Unit) -> Floats:
        rows = self._worth(unit, "gate").sum(1) + self._worth(unit, "up").sum(1)
        found: Floats = rows + self._worth(unit, "down").sum(0)
        return found

    def group_scores(self, unit: Unit) -> Floats:
        rows = [by_group(unit, self._worth(unit, part).sum(1)) for part in "qkv"]
        found: Floats = np.sum([*rows, by_group(unit, self._worth(unit, "o").sum(0))], axis=0)
        return found

    def _worth(self, unit: Unit, part: str) -> Floats:
        """|weight times gradient| of every weight; nothing of a matrix that the layer lacks."""
        name = f"layers.{unit.layer}.{part}"
        if name not in unit.taps or name not in set(unit.names()):
            return np.zeros((1, 1), np.float32)
        gradient = unit.taps[name].gradient
        assert gradient is not None, "its need is declared"
        found: Floats = np.abs(unit.values(name) * gradient.total) / np.float32(gradient.windows)
        return found
