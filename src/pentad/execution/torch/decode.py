"""Attention of decode rows over block tables: one new token each, whatever their lengths.

Nothing that changes from step to step is in a shape or a number that Python sees, only in device
memory, so that a step can be recorded once and replayed.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.batch import Int32
from pentad.execution.torch.devices import BFLOAT16_CAPABILITY

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRows:
    """What B rows read. All on the device."""

    tables: torch.Tensor
    """[M, B] int32 block numbers in order, one column per row, contiguous; any valid number behind its
    last."""
    lens: torch.Tensor
    """[B] int32 KV slots in use, the row's own included; at least 1."""


class DecodeKernel(Protocol):
    """Context [B, H D] of one query per row over the row's blocks."""

    def __call__(
        self, queries: torch.Tensor, blocks: torch.Tensor, rows: DecodeRows, window: int | None
    ) -> torch.Tensor:
        """The context, in the precision of the cache.

        Args:
            queries: [B, H, D], neighbours in the last two axes.
            blocks: [blocks, P, 2, K, D] of one layer.
            rows: which blocks, how many slots.
            window: the last slots that are seen; None sees all.
        """
        ...


def gathered(
    queries: torch.Tensor, blocks: torch.Tensor, rows: DecodeRows, window: int | None
) -> torch.Tensor:
    """A `DecodeKernel` in plain PyTorch: the reference, which copies all blocks of the tables."""
    count, kv_heads, head_dim = len(rows.lens), blocks.shape[3], blocks.shape[4]
    found = blocks.index_select(0, rows.tables.t().reshape(-1)).view(count, -1, 2, kv_heads, head_dim)
    at = torch.arange(found.shape[1], device=blocks.device)
    seen = at < rows.lens[:, None]
    if window is not None:
        seen &= at >= rows.lens[:, None] - window
    return F.scaled_dot_product_attention(
        queries.reshape(count, kv_heads, -1, head_dim),  # [B, K, H / K, D]
        found[:, :, 0].transpose(1, 2),
        found[:, :, 1].transpose(1, 2),
        attn_mask=seen[:, None, None, :],
    ).flatten(1)


def table_columns(tables: Int32, context_lens: Int32, block_size: int) -> Int32:
    """[M, B] of block tables [B, .]: as many lines as the longest context needs, nowhere negative."""
    used = -(-int(context_lens.max()) // block_size)
    return np.maximum(tables[:, :used].T, 0, order="C")


def decode_kernel(device: torch.device) -> DecodeKernel | None:
    """The fused kernel of this device; None where there is none and PyTorch's attention is used."""
    if device.type != "cuda":
        return None
    if importlib.util.find_spec("triton") is None:
        _log.warning("decode attention on %s is PyTorch's, slower: Triton is not installed", device)
        return None
    if torch.cuda.get_device_capability(device) < BFLOAT16_CAPABILITY:
        _log.warning("decode attention on %s is PyTorch's, slower: the GPU is too old for ours", device)
        return None
    from pentad.execution.torch.triton_decode import TritonDecode

    return TritonDecode(torch.cuda.get_device_properties(device).multi_processor_count)
