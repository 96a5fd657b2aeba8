"""Latent attention: queries of many heads over one vector per token.

A head's key is `k_up` times the vector, with the rotated key behind it, and its value `v_up` times the
vector. There are two ways to the same context:

    absorbed   (k_up^T q) . vector      one key for all heads; reads the cache as it is
    expanded   q . (k_up vector)        makes keys and values of every slot; fewer products per pair

so decoding absorbs, and a long enough chunk of a prompt expands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.mixers import LatentAttention
from pentad.execution.torch.cache import Rows
from pentad.execution.torch.linear import Linear
from pentad.execution.torch.rope import Rotation

_MOST_NUMBERS = 1 << 25
"""Of scores, or of keys and values made, that are held at once: 128 MB in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentHeads:
    """What one layer asks and keeps: queries of N tokens, and one row for each of them."""

    record: LatentAttention
    queries: torch.Tensor
    """[N, H, nope + rope], turned."""
    rows: torch.Tensor
    """[N, 1, R + rope]: the vector, normed, and the rotated key."""
    k_up: torch.Tensor
    """[H, nope, R]"""
    v_up: torch.Tensor
    """[H, D, R]"""

    def attend(
        self, which: Rows, found: torch.Tensor, mask: torch.Tensor | None, *, causal: bool
    ) -> torch.Tensor:
        """Context [tokens, H D] of the queries of B texts that have T tokens each, over S slots.

        Args:
            which: the B T tokens, text by text.
            found: [B, S, R + rope], what is kept of each slot.
            mask: added to the scores, of a shape that fits [B, 1, T, S]; None sees all, or what is not ahead.
            causal: whether tokens do not see those behind them, where there is no mask.
        """
        queries = self.queries[which].unflatten(0, (len(found), -1))  # [B, T, H, nope + rope]
        if expands(self.record, queries.shape[1]):
            context = self._expanded(queries, found, mask, causal=causal)
        else:
            context = self._absorbed(queries, found, mask, causal=causal)
        return context.flatten(0, 1).flatten(1)

    def _absorbed(
        self, queries: torch.Tensor, found: torch.Tensor, mask: torch.Tensor | None, *, causal: bool
    ) -> torch.Tensor:
        record = self.record
        texts, tokens = queries.shape[:2]
        plain, turned = queries.split((record.nope_dim, record.rope.dim), dim=-1)
        absorbed = plain.flatten(0, 1).transpose(0, 1) @ self.k_up  # [H, B T, R]
        asked = torch.cat((absorbed.transpose(0, 1), turned.flatten(0, 1)), -1)  # [B T, H, R + rope]
        asked = asked.unflatten(0, (texts, tokens))
        seen = _seen(mask, tokens, found, causal=causal)
        slots = found.transpose(1, 2)
        vectors = torch.empty_like(absorbed.transpose(0, 1)).unflatten(0, (texts, tokens))
        at_once = max(1, _MOST_NUMBERS // (texts * record.heads * found.shape[1]))
        for part in (slice(i, i + at_once) for i in range(0, tokens, at_once)):
            # One key serves all heads, whose queries stand as rows beside each other.
            scores = (asked[:, part].flatten(1, 2) @ slots).unflatten(1, (-1, record.heads)).float()
            scores = scores * record.score_scale  # [B, tokens of the part, H, S]
            if seen is not None:
                scores = scores + (seen[:, part] if seen.shape[1] > 1 else seen)
            weights = scores.softmax(-1).to(found.dtype).flatten(1, 2)
            vectors[:, part] = (weights @ found[..., : record.kv_rank]).unflatten(1, (-1, record.heads))
        by_head = vectors.flatten(0, 1).transpose(0, 1)  # [H, B T, R]
        return (by_head @ self.v_up.transpose(1, 2)).transpose(0, 1).unflatten(0, (texts, tokens))

    def _expanded(
        self, queries: torch.Tensor, found: torch.Tensor, mask: torch.Tensor | None, *, causal: bool
    ) -> torch.Tensor:
        record = self.record
        texts, slots = found.shape[:2]
        vectors, turned = found.unsqueeze(1).split((record.kv_rank, record.rope.dim), dim=-1)
        at_once = max(1, _MOST_NUMBERS // (texts * slots * (record.key_dim + record.value_dim)))
        parts = []
        for i in range(0, record.heads, at_once):
            k_up, v_up = self.k_up[i : i + at_once], self.v_up[i : i + at_once]
            shared = turned.expand(-1, len(k_up), -1, -1)
            context = F.scaled_dot_product_attention(
                queries[:, :, i : i + at_once].transpose(1, 2),
                torch.cat((vectors @ k_up.transpose(1, 2), shared), -1),  # [B, heads, S, nope + rope]
                vectors @ v_up.transpose(1, 2),  # [B, heads, S, D]
                attn_mask=mask,
                is_causal=causal and mask is None,
                scale=record.score_scale,
            )
            parts.append(context.transpose(1, 2))
        return torch.cat(parts, dim=2)


def expands(record: LatentAttention, tokens: int) -> bool:
    """Whether a text of so many new tokens takes fewer products with keys and values of its slots.

    Per slot and head: to expand costs R (nope + D) once, and nope + rope + D for each token; what is kept
    costs 2 R + rope for each.
    """
    once = record.kv_rank * (record.nope_dim + record.value_dim)
    saved = 2 * record.kv_rank + record.rope.dim - (record.key_dim + record.value_dim)
    return tokens * saved > once


def _seen(
    mask: torch.Tensor | None, tokens: int, found: torch.Tensor, *, causal: bool
) -> torch.Tensor | None:
    """The mask as [B or 1, T or 1, 1, S], heads behind tokens."""
    if mask is not None:
        return mask.view(-1, *mask.shape[-2:]).unsqueeze(2)
    if not causal or tokens == 1:
        return None
    ahead = torch.ones(tokens, found.shape[1], dtype=torch.bool, device=found.device).triu_(1)
    hidden = torch.zeros(ahead.shape, device=found.device).masked_fill_(ahead, -torch.inf)
    return hidden[None, :, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentWeights:
    """The matrices of one layer's latent attention."""

    record: LatentAttention
    q_down: Linear | None
    q_norm: torch.Tensor | None
    q: Linear
    kv_down: Linear
    kv_norm: torch.Tensor
    k_up: torch.Tensor
    v_up: torch.Tensor
    o: Linear

    def heads(self, x: torch.Tensor, rotation: Rotation, tables: tuple[torch.Tensor, ...]) -> LatentHeads:
        """What N hidden states [N, E] ask and keep."""
        record = self.record
        if self.q_down is not None and self.q_norm is not None:
            asking = F.rms_norm(self.q_down(x), self.q_norm.shape, self.q_norm, record.norm_eps)
        else:
            asking = x
        queries = self.q(asking).view(len(x), record.heads, record.key_dim)
        vectors, key = self.kv_down(x).split((record.kv_rank, record.rope.dim), dim=-1)
        vectors = F.rms_norm(vectors, self.kv_norm.shape, self.kv_norm, record.norm_eps)
        plain, turned = queries.split((record.nope_dim, record.rope.dim), dim=-1)
        both = torch.cat((turned, key.unsqueeze(1)), dim=1)  # [N, H + 1, rope]
        if record.rope.pairing == "interleaved":
            both = both.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
        rotation.turn(both, tables)
        return LatentHeads(
            record=record,
            queries=torch.cat((plain, both[:, :-1]), dim=-1),
            rows=torch.cat((vectors.unsqueeze(1), both[:, -1:]), dim=-1),
            k_up=self.k_up,
            v_up=self.v_up,
        )


@runtime_checkable
class LatentAttend(Protocol):
    """Knows the sequences of a step: which tokens are theirs, what is kept of those in front."""

    def latent(self, layer: int, heads: LatentHeads) -> torch.Tensor:
        """Context [N, H D], what is kept of the step's tokens being written first."""
        ...


def keeps_vectors(attend: object) -> LatentAttend:
    """What attends in this step, which has to know latent attention."""
    assert isinstance(attend, LatentAttend), "this step keeps keys and values alone"
    return attend


def over_texts(runs: Sequence[tuple[int, int, int]], heads: LatentHeads, *, causal: bool) -> torch.Tensor:
    """Context [N, H D] within whole texts that lie end to end: runs of (first token, texts, tokens each)."""
    parts = []
    for start, texts, length in runs:
        which = slice(start, start + texts * length)
        found = heads.rows[which, 0].unflatten(0, (texts, length))
        parts.append(heads.attend(which, found, None, causal=causal))
    return torch.cat(parts)
