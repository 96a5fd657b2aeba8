"""Attention with scores that the fused kernels don't have: ALiBi, relative biases, caps, sinks, a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pentad.execution.mixers import Attention
from pentad.execution.positions import Alibi, RelativeBuckets, Rope, alibi_slopes
from pentad.execution.torch.distances import DistanceScores
from pentad.execution.torch.dual_chunks import DualRotation


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeBias:
    """A learned number for each head and bucket of distances."""

    record: RelativeBuckets
    table: torch.Tensor
    """[buckets, H]."""

    def __call__(self, distances: torch.Tensor) -> torch.Tensor:
        """What is added to scores [B, H, T, S] at distances [B, T, S], in float32."""
        return self.table.float()[buckets_of(self.record, distances)].permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRule:
    """How one layer's scores become weights, where that isn't the plain softmax of scaled products."""

    scale: float
    cap: float | None
    slopes: torch.Tensor | None
    """[H] of ALiBi."""
    sinks: torch.Tensor | None
    """[H] scores that take weight and give nothing."""
    relative: RelativeBias | None = None
    dual: DualRotation | None = None
    distances: DistanceScores | None = None

    @classmethod
    def of(
        cls,
        mixer: Attention,
        sinks: torch.Tensor | None,
        device: torch.device,
        relative: RelativeBias | None = None,
        distances: DistanceScores | None = None,
    ) -> ScoreRule | None:
        """The rule of a layer; None where the fused kernels compute it."""
        if mixer.plain_scores and relative is None:
            return None
        at = mixer.positions
        slopes = torch.tensor(alibi_slopes(mixer.heads, at), device=device) if isinstance(at, Alibi) else None
        scale = mixer.head_dim**-0.5 if mixer.scale is None else mixer.scale
        dual = DualRotation(at, device) if isinstance(at, Rope) and at.dual is not None else None
        return cls(
            scale=scale,
            cap=mixer.score_cap,
            slopes=slopes,
            sinks=sinks,
            relative=relative,
            dual=dual,
            distances=distances,
        )

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        at: torch.Tensor,
        distances: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Context [B, H, T, D], computed in float32.

        Args:
            queries: [B, H, T, D].
            keys, values: [B, K, S, D].
            at: [B or 1, T] positions of the queries.
            distances: [B or 1, T, S] tokens from a query back to a slot.
            mask: added to the scores, of a shape that fits [B, T, S]; None sees all that is not ahead.
        """
        texts, heads, tokens, dim = queries.shape
        kv_heads, slots = keys.shape[1], keys.shape[2]

        def product(asked: torch.Tensor) -> torch.Tensor:
            shared = asked.float().reshape(texts, kv_heads, -1, dim)  # [B, K, H / K * T, D]
            return (shared @ keys.float().transpose(-1, -2)).view(texts, heads, tokens, slots)

        if self.dual is not None:
            scores = self.dual.products(queries, product, at, distances) * self.scale
        elif self.distances is not None:
            asking = queries.float()
            by_content = product(asking + self.distances.content[:, None])
            scores = (by_content + self.distances(asking, distances)) * self.scale
        else:
            scores = product(queries) * self.scale
        if self.cap is not None:
            scores = self.cap * torch.tanh(scores / self.cap)
        if self.slopes is not None:
            scores = scores - self.slopes[:, None, None] * distances[:, None]
        if self.relative is not None:
            scores = scores + self.relative(distances)
        if mask is None:
            scores = scores.masked_fill(distances[:, None] < 0, -torch.inf)
        else:
            scores = scores + mask.view(-1, 1, *mask.shape[-2:])
        if self.sinks is not None:
            column = self.sinks.float()[:, None, None].expand(texts, -1, tokens, 1)
            weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        context = weights.view(texts, kv_heads, -1, slots) @ values.float()
        return context.view(texts, heads, tokens, dim).to(queries.dtype)


def buckets_of(record: RelativeBuckets, distances: torch.Tensor) -> torch.Tensor:
    """The bucket of each distance, which counts tokens from a query back to a slot.

    Half of the buckets hold one distance each, the others ranges that grow geometrically up to
    `max_distance`; with `bidirectional` the second half of all is for slots ahead.

    Source: Raffel et al. 2020, section 2.1, and the authors' code for the ranges.
    """
    buckets, first = record.buckets, torch.zeros_like(distances)
    if record.bidirectional:
        buckets //= 2
        first = (distances < 0) * buckets
        distances = distances.abs()
    distances = distances.clamp(min=0)
    exact = buckets // 2
    # At least one range begins behind the exact distances, so that the logarithm is of 1 or more.
    turns = torch.log(distances.clamp(min=exact).float() / exact) / math.log(record.max_distance / exact)
    ranges = (exact + (turns * (buckets - exact)).long()).clamp(max=buckets - 1)
    return first + torch.where(distances < exact, distances, ranges)
