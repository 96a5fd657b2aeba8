"""Fewer key/value heads by averaging neighbours: multi-head to grouped-query to multi-query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit, written
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class KVPooling:
    """Makes each key/value head the mean of as many neighbours as now share it.

    Query heads keep their order, so that each reads the mean of the heads its group had. KV bytes
    fall in the ratio of the head counts, exactly; the model's quality falls too, and brief tuning
    (a few percent of the pre-training) wins most of it back.

    Exactness: lossy; the metric is perplexity. Cost: one pass over the key and value matrices.

    Source: Ainslie et al., "GQA", EMNLP'23, section 2.1. No difference.
    """

    kv_heads: int = 1
    """Key/value heads of the result; 1 is multi-query attention."""
    format: TensorFormat = "F32"
    """Format that pooled keys and values are written in."""

    name: ClassVar[str] = "kv-pooling"
    exactness: ClassVar[Exactness] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset()

    def target(self, spec: ModelSpec) -> ModelSpec:
        """The spec with `kv_heads` key/value heads. Raises Incompatible where they do not divide evenly."""
        possible = [n for n in range(1, spec.kv_heads + 1) if spec.kv_heads % n == 0]
        if self.kv_heads not in possible:
            raise Incompatible(
                f"the {spec.kv_heads} KV heads of model {spec.name!r} do not pool into {self.kv_heads}",
                hint=f"set kv_heads to one of {', '.join(map(str, possible))}",
                param="kv_heads",
            )
        return spec.with_attention(kv_heads=self.kv_heads)

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        heads = unit.spec.kv_heads
        self.target(unit.spec)
        found: dict[str, StoredTensor] = {}
        for name in unit.names():
            part = name.removesuffix(".bias").rpartition(".")[2]
            if unit.layer is None or part not in ("k", "v") or heads == self.kv_heads:
                continue
            values = unit.values(name)
            rest = values.shape[1:]  # [E] of a matrix, nothing of a bias
            grouped = values.reshape(self.kv_heads, heads // self.kv_heads, -1, *rest)
            means = np.ascontiguousarray(grouped.mean(axis=1, dtype=np.float32)).reshape(-1, *rest)
            found[name] = written(name, means, self.format)
        return found
