"""The parts of a decode step on any device, for the tests of what a GPU replays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from pentad.execution.batch import RaggedBatch
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import DecodeKernel, DecodeRows, table_columns
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program
from ragged_batches import ragged
from torch_reference import TINY, ArrayWeights, tiny_arrays, windowed

CPU = torch.device("cpu")
WINDOWED = windowed(TINY, 20, 1)
BLOCKS = 80


def tokens_of(sequence: int, length: int) -> list[int]:
    return np.random.default_rng(sequence).integers(0, TINY.vocab_size, length).tolist()


def tables_of(lengths: Sequence[int]) -> list[list[int]]:
    """Scattered blocks for sequences of those lengths."""
    numbers = np.random.default_rng(len(lengths)).permutation(BLOCKS).tolist()
    return [[numbers.pop() for _ in range(-(-length // 16))] for length in lengths]


def prompts(lengths: Sequence[int]) -> RaggedBatch:
    """All but the last token of sequences of those lengths; those of one token have none."""
    tables = tables_of(lengths)
    parts = [(tokens_of(i, n)[:-1], 0, tables[i]) for i, n in enumerate(lengths) if n > 1]
    return ragged(parts, rows=[])


def decoding(lengths: Sequence[int]) -> RaggedBatch:
    """The last token of each sequence, whose lengths count it."""
    tables = tables_of(lengths)
    return ragged([(tokens_of(i, n)[-1:], n - 1, tables[i]) for i, n in enumerate(lengths)])


def parts(spec: ModelSpec, device: torch.device = CPU) -> tuple[Program, KVCache]:
    """A program with random weights, and a cache with a scratch block."""
    source = ArrayWeights(tiny_arrays(spec))
    with torch.inference_mode():
        loaded = WeightLoader(spec, source, dtype=torch.float32, device=device).load()
        return Program(spec, loaded), KVCache(spec, BLOCKS, 16, torch.float32, device, scratch=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A decode attention of random numbers."""

    lengths: tuple[int, ...]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 16
    window: int | None = None


SHAPES = (
    Shape(lengths=(1,)),
    Shape(lengths=(64, 65, 1, 130)),
    Shape(lengths=(700, 3), heads=9, kv_heads=3, head_dim=64),
    Shape(lengths=(33, 200), heads=3, kv_heads=3, head_dim=8, block_size=4),
    Shape(lengths=(90, 17, 40), heads=8, kv_heads=1, head_dim=80, block_size=32),
    Shape(lengths=(300, 5, 21), window=20),
    Shape(lengths=(150, 64), window=64, heads=32, kv_heads=1),
)


def attended(
    kernel: DecodeKernel, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> torch.Tensor:
    """The kernel's context for the same numbers, whatever kernel and device; stale slots are large."""
    rng = np.random.default_rng(3)
    needed = [-(-length // shape.block_size) for length in shape.lengths]
    numbers = rng.permutation(sum(needed) + 2).astype(np.int32)
    tables = np.full((len(needed), max(needed)), -1, np.int32)
    for i, count in enumerate(needed):
        tables[i, :count], numbers = numbers[:count], numbers[count:]
    blocks = rng.normal(size=(sum(needed) + 2, shape.block_size, 2, shape.kv_heads, shape.head_dim))
    lens = np.array(shape.lengths, np.int32)
    for i, length in enumerate(lens):  # what lies behind a sequence's end would be noticed
        blocks[tables[i, (length - 1) // shape.block_size], (length - 1) % shape.block_size + 1 :] = 50.0
    heads = rng.normal(size=(len(lens), shape.heads + 2 * shape.kv_heads, shape.head_dim))
    columns = table_columns(tables, lens, shape.block_size)
    rows = DecodeRows(tables=torch.from_numpy(columns).to(device), lens=torch.from_numpy(lens).to(device))
    queries = torch.from_numpy(heads).to(device, dtype)[:, : shape.heads]
    with torch.inference_mode():
        context = kernel(queries, torch.from_numpy(blocks).to(device, dtype), rows, shape.window)
    return context.float().cpu()
