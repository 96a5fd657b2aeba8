"""Rank: what one process computes of a step, whatever computes it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final, Protocol

from pentad.execution.batch import RaggedBatch
from pentad.execution.codecs.base import Floats
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.messages import Setup
from pentad.execution.ranks.shards import HeldSource, ShardSource
from pentad.execution.spec import ModelSpec

DRIVER: Final = 0
TORCH: Final = "torch"
HANDED_ON, LOGITS, KEYS = "hand-on", "logits", "keys"
"""What rows are for: hidden states for the next stage, scores for rank 0, keys and values of all tokens."""


class Rank(Protocol):
    """One rank of a layout. Called by one thread, with the same steps as all others."""

    group: RankGroup

    @property
    def weight_bytes(self) -> int: ...

    @property
    def kv_block_bytes(self) -> int: ...

    def step(self, batch: RaggedBatch, count: int) -> Floats | None:
        """Computes its part of a step in so many pieces; at rank 0 the logits [R, V], at others None."""
        ...

    def copy(self, what: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Moves what its cache holds (messages.py: Copy)."""
        ...


def import_rank(setup: Setup) -> None:
    """Imports what `load_rank` will need, PyTorch only where it computes."""
    importlib.import_module(f"pentad.execution.{'torch' if setup.kernels == TORCH else 'native'}.rank")


def load_rank(
    spec: ModelSpec, layout: Layout, group: RankGroup, source: ShardSource | HeldSource, setup: Setup
) -> Rank:
    """The rank with its weights, on the kernels that the setup names. Raises what loading a model raises."""
    if setup.kernels != TORCH:
        from pentad.execution.native.rank import NativeRank

        return NativeRank(
            spec,
            layout,
            group,
            source,
            num_blocks=setup.num_blocks,
            threads=setup.threads,
            kernels=setup.kernels,
        )
    from pentad.execution.torch.rank import TorchRank

    return TorchRank(
        spec,
        layout,
        group,
        source,
        num_blocks=setup.num_blocks,
        block_size=setup.block_size,
        dtype=setup.dtype,  # type: ignore[arg-type]
        device=setup.device,
        threads=setup.threads,
    )
