"""Decode steps at fixed sizes: padded to a bucket, recorded once as a CUDA graph, replayed after.

A decode step of a small model is hundreds of launches that take longer to make than to run. A graph
makes them one, but reads and writes where it did when it was recorded, so that the inputs lie in
buffers of their own and a step of 5 rows is computed as one of 8. The rows too many read and write
the cache's scratch block, which no sequence holds. Steps with chunks of prompts or drafts are not
recorded. Recording alone needs a GPU; all else is tested on the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from pentad.execution.batch import RaggedBatch
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import DecodeKernel, DecodeRows, table_columns
from pentad.execution.torch.program import Program

_log = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Rows that steps are padded to; larger steps are not recorded."""

_TOKEN, _POSITION, _SLOT, _LEN, _TABLE = range(5)
"""Lines of a step's buffer; the table's go to the end."""
_WARM_UPS = 2

Compute = Callable[[], torch.Tensor]
Record = Callable[[Compute], Compute]
"""Makes of a computation over fixed places one that is quicker to start, with the same outcome."""


def bucket_for(rows: int) -> int:
    """The smallest bucket that holds that many rows, which is at most the largest."""
    return next(bucket for bucket in BUCKETS if rows <= bucket)


class StepBuffers:
    """The inputs of a decode step at fixed places of the device, an idle row where there is none.

    One int32 array [4 + M, B], which lies on the host too (page-locked for a GPU): its first lines
    are token, position, slot and length of each row, the others its block table, so that a step is
    sent by one copy of as many lines as its longest context needs.
    """

    def __init__(self, bucket: int, cache: KVCache, most_blocks: int) -> None:
        assert cache.scratch_block is not None, "padding rows need a scratch block"
        self._block_size = cache.block_size
        self._idle = np.full((_TABLE + most_blocks, 1), cache.scratch_block, np.int32)
        """A row that sees what it writes, the first slot of the scratch block."""
        self._idle[:_TABLE, 0] = (0, 0, cache.scratch_block * cache.block_size, 1)
        lines = torch.from_numpy(np.repeat(self._idle, bucket, axis=1))
        self._host = lines.pin_memory() if cache.device.type == "cuda" else lines
        self._lines = self._host.numpy()
        self._device = self._host.to(cache.device, copy=True)
        self.token_ids = self._device[_TOKEN]
        self.positions = self._device[_POSITION]
        self.slots = self._device[_SLOT]
        self.rows = DecodeRows(tables=self._device[_TABLE:], lens=self._device[_LEN])

    def fill(self, batch: RaggedBatch) -> None:
        """Makes the step's rows the first, and all others idle."""
        count = len(batch.token_ids)
        columns = table_columns(batch.block_tables, batch.context_lens, self._block_size)
        used = _TABLE + len(columns)
        self._lines[_TOKEN, :count] = batch.token_ids
        self._lines[_POSITION, :count] = batch.positions
        self._lines[_SLOT, :count] = batch.slots
        self._lines[_LEN, :count] = batch.context_lens
        self._lines[_TABLE:used, :count] = columns
        self._lines[:used, count:] = self._idle[:used]
        self._device[:used].copy_(self._host[:used])


class DecodeSteps:
    """Computes the steps that only decode, each at the size of its bucket.

    Args:
        program: the model.
        cache: with a scratch block.
        kernel: attends.
        record: called once per bucket, with its computation, when the first such step comes.
    """

    def __init__(self, program: Program, cache: KVCache, kernel: DecodeKernel, record: Record) -> None:
        self._program = program
        self._cache = cache
        self._kernel = kernel
        self._record = record
        self._windows = program.spec.windows
        self._most_blocks = -(-program.spec.context_length // cache.block_size)
        self._steps: dict[int, tuple[StepBuffers, Compute]] = {}

    def takes(self, batch: RaggedBatch) -> bool:
        """Whether every sequence of the step has one new token, whose logits are wanted, and no tree."""
        count = len(batch.token_ids)
        return (
            0 < count <= BUCKETS[-1]
            and count == len(batch.context_lens) == len(batch.logit_rows)
            and batch.embeddings is None
            and (batch.tree_slots is None or not batch.tree_slots.any())
            and int(batch.context_lens.max()) <= self._most_blocks * self._cache.block_size
        )

    def logits(self, batch: RaggedBatch) -> torch.Tensor:
        """Logits [R, V] of a step that it takes; they hold until the next call."""
        count = len(batch.token_ids)
        bucket = bucket_for(count)
        if bucket not in self._steps:
            buffers = StepBuffers(bucket, self._cache, self._most_blocks)
            buffers.fill(batch)  # what is recorded is run, over this step
            self._steps[bucket] = buffers, self._recorded(bucket, lambda: self._compute(buffers))
        buffers, run = self._steps[bucket]
        buffers.fill(batch)
        return run()[:count]

    def _recorded(self, bucket: int, compute: Compute) -> Compute:
        try:
            return self._record(compute)
        except RuntimeError as e:
            _log.warning("steps of %d rows run unrecorded, slower: %s", bucket, e)
            return compute

    def _compute(self, buffers: StepBuffers) -> torch.Tensor:
        slots = buffers.slots.to(torch.int64)
        heads_of_queries = self._program.spec.heads

        def attend(layer: int, heads: torch.Tensor) -> torch.Tensor:
            self._cache.write(layer, slots, heads[:, heads_of_queries:])
            queries = heads[:, :heads_of_queries]
            return self._kernel(queries, self._cache.layer(layer), buffers.rows, self._windows[layer])

        hidden = self._program.hidden(buffers.token_ids, buffers.positions, attend)
        return self._program.logits(hidden)


class GraphRecorder:
    """Records computations as CUDA graphs that share their memory, since one runs at a time.

    A graph's outcome may be overwritten by the next graph. The device must be the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Compute:
        """Runs it for what is compiled and allocated at first, then records it."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                compute()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other engines' threads may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outcome = compute()

        def replay() -> torch.Tensor:
            graph.replay()
            return outcome

        return replay
