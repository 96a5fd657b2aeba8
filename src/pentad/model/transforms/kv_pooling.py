"""Fewer key/value heads by averaging neighbours: multi-head to grouped-query to multi-query."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor, WeightSource
from pentad.model.transforms.base import Exactness, Transformed
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class KVPooling:
    """Each new key/value head is the mean of as many neighbouring ones as now share it.

    Query heads keep their order, so that each reads the mean of the heads its group had. KV bytes
    fall in the ratio of the head counts, exactly; the model's quality falls too, and brief tuning
    (a few percent of the pre-training) wins most of it back.

    Exactness: lossy; the metric is perplexity. Cost: one pass over the key and value matrices
    when they are read, in float32.

    Source: Ainslie et al., "GQA", EMNLP'23, section 2.1. No difference.
    """

    kv_heads: int
    """Key/value heads of the result; 1 is multi-query attention."""

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
        return dataclasses.replace(spec, kv_heads=self.kv_heads)

    def apply(self, spec: ModelSpec, weights: WeightSource) -> Transformed:
        target = self.target(spec)
        decision = Decision(
            layer="model",
            policy=self.name,
            subject="kv_heads",
            chosen=str(self.kv_heads),
            candidates=tuple(
                (str(n), float(dataclasses.replace(spec, kv_heads=n).kv_bytes_per_token()))
                for n in range(1, spec.kv_heads + 1)
                if spec.kv_heads % n == 0
            ),
        )
        pooled = PooledWeights(source=weights, heads=spec.kv_heads, pooled_heads=self.kv_heads)
        return Transformed(spec=target, weights=pooled, decision=decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledWeights:
    """A weight source whose keys and values are means over neighbouring heads; the rest passes through."""

    source: WeightSource
    heads: int
    pooled_heads: int

    def names(self) -> Iterable[str]:
        return self.source.names()

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that name; pooled ones in F32. Raises KeyError when absent."""
        stored = self.source.tensor(name)
        part = name.removesuffix(".bias").rsplit(".", 1)[-1]
        if not name.startswith("layers.") or part not in ("k", "v") or self.heads == self.pooled_heads:
            return stored
        values = dequantize(stored)
        rest = values.shape[1:]  # [E] of a matrix, nothing of a bias
        grouped = values.reshape(self.pooled_heads, self.heads // self.pooled_heads, -1, *rest)
        means = np.ascontiguousarray(grouped.mean(axis=1, dtype=np.float32)).reshape(-1, *rest)
        return StoredTensor(name=name, format="F32", shape=means.shape, data=means.reshape(-1).view(np.uint8))
