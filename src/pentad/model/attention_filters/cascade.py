"""Tokens and heads that mattered little so far are left out from layer to layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.attention_filter import FULL_BITS, Chosen, Floats, Look, Mask
from pentad.execution.spec import ModelSpec
from pentad.model.attention_filters.base import rounded, softmax
from pentad.ranges import in_range
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Leaves out, layer by layer, tokens and heads that mattered least so far, and reads few bits first.

    A token matters by the weights that all heads gave it in earlier layers, a head by what it gave. What is
    left out stays out in later layers. Keys are read in few bits; rows whose weights these leave flat are
    read in full.

    Exactness: lossy; the metric is perplexity. Cost: a sum per position and layer, and its order.

    Source: Wang et al., "SpAtten: Efficient Sparse Attention Architecture with Cascade Token and Head
    Pruning", HPCA'21, sections III-A to III-D. Our difference: importance is gathered for every new token by
    itself through the layers of its step, so that neither batch nor chunk changes it; a token left out by one
    query may be seen by the next.
    """

    name: ClassVar[str] = "cascade"
    exactness: ClassVar[Exactness] = "lossy"

    tokens: float = 0.3
    """Of the tokens, how many are left in the last layer; in those before more, in equal steps."""
    heads: float = 0.8
    """Of the heads, likewise."""
    whole_layers: int = 2
    """First layers, in which nothing is left out."""
    bits: int = 8
    """Of keys that are read at first; 0: they are read in full."""
    flat: float = 0.1
    """Largest weight below which a row is read in full."""

    def __post_init__(self) -> None:
        for name in ("tokens", "heads", "flat"):
            in_range(name, getattr(self, name), least=0, most=1, hint=f"change {name}")
        in_range("whole_layers", self.whole_layers, least=0, hint="change whole_layers")
        in_range("bits", self.bits, least=0, most=15, hint="change bits")

    def start(self, spec: ModelSpec) -> _Cascading:
        return _Cascading(self, spec.layers)


class _Cascading:
    def __init__(self, options: Cascade, layers: int) -> None:
        self._options = options
        self._layers = layers
        self._left: Mask | None = None  # [T, S]
        self._heads: Mask | None = None  # [H, T]
        self._weights: Floats | None = None  # [T, S] so far
        self._outputs: Floats | None = None  # [H, T] so far

    def choose(self, look: Look) -> Chosen:
        if self._left is None or self._heads is None:
            self._left, self._heads = look.visible, np.ones(look.shape[:2], bool)
        past = look.layer - self._options.whole_layers + 1
        if past > 0 and self._weights is not None and self._outputs is not None:
            done = past / max(1, self._layers - self._options.whole_layers)
            own = look.visible.sum(axis=-1, keepdims=True)
            keep = np.ceil((1 - (1 - self._options.tokens) * done) * own)
            self._left = _best(self._weights, self._left, keep)
            heads = math.ceil((1 - (1 - self._options.heads) * done) * len(look.queries))
            self._heads = _best(self._outputs.T, self._heads.T, np.array(heads)).T
        keep_all = self._left & self._heads[:, :, None]
        scores, bits = self._scores(look, keep_all)
        return Chosen(keep=keep_all, scores=scores, score_bits=bits, heads=self._heads)

    def _scores(self, look: Look, keep: Mask) -> tuple[Floats | None, int | None]:
        bits, dim = self._options.bits, look.keys.shape[-1]
        if not bits:
            return None, None
        exact = look.scores(look.queries, look.keys)
        few = look.scores(look.queries, rounded(look.keys, bits))
        flat = softmax(few).max(axis=-1, keepdims=True) < self._options.flat
        read = int(keep.sum()) * bits + int((keep & flat).sum()) * (FULL_BITS - bits)
        return np.where(flat, exact, few), read * dim

    def skip(self, weights: Floats) -> Mask | None:
        del weights
        return None

    def note(self, weights: Floats, outputs: Floats) -> None:
        given, size = weights.sum(axis=0), np.abs(outputs).sum(axis=-1)
        self._weights = given if self._weights is None else self._weights + given
        self._outputs = size if self._outputs is None else self._outputs + size


def _best(worth: Floats, left: Mask, count: np.ndarray) -> Mask:
    """Of what is left in each row, the `count` that are worth most."""
    order = np.argsort(-np.where(left, worth, -1), axis=-1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(order.shape[-1]), order.shape), axis=-1)
    kept: Mask = left & (places < count)
    return kept
