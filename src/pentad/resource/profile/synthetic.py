"""Steps of made-up models on a real runner: what a step costs beside its large matrix products.

The geometries below belong to no published model. Their matrices are small, so launches,
attention, element-wise work and drawing show; a fit over all of them gives each its rate.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor
from pentad.resource.step_shape import StepShape

BLOCK_SIZE = 16
SequenceShape = tuple[int, int]
"""(new tokens, context after the step)"""
_SHORT_S = 0.05
_MOST_REPEATS = 20


def geometry(
    name: str, *, layers: int, width: int, heads: int, kv_heads: int, head_dim: int, ffn: int, vocab: int
) -> ModelSpec:
    """A decoder of the ordinary kind: rotary positions, RMS norm, gated, tied head."""
    return uniform_spec(
        name=name,
        family="synthetic",
        vocab_size=vocab,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_width=ffn,
        context_length=4096,
        positions=Rope(dim=head_dim),
    )


class SyntheticWeights:
    """A WeightSource of fixed noise, so that nothing overflows and nothing is zero."""

    def __init__(self, spec: ModelSpec) -> None:
        self._shapes = spec.tensors()
        self._noise = np.random.default_rng(0).standard_normal(1 << 14).astype(np.float32) * 0.02

    def names(self) -> Iterable[str]:
        return self._shapes

    def tensor(self, name: str) -> StoredTensor:
        shape = self._shapes[name]
        values = np.resize(self._noise, shape)
        return StoredTensor(name=name, format="F32", shape=shape, data=values.view(np.uint8).reshape(-1))


def step_batch(sequences: Sequence[SequenceShape], num_blocks: int) -> RaggedBatch:
    """A ragged batch of these shapes, on blocks that lie scattered as in a busy pool.

    Every sequence ends here, so each gets a logit row.
    """
    order = np.random.default_rng(0).permutation(num_blocks)
    counts = [-(-context // BLOCK_SIZE) for _, context in sequences]
    tables = np.full((len(sequences), max(counts)), -1, dtype=np.int32)
    positions: list[npt.NDArray[np.int64]] = []
    slots: list[npt.NDArray[np.int64]] = []
    first = 0
    for i, (new, context) in enumerate(sequences):
        blocks = order[first : first + counts[i]]
        first += counts[i]
        tables[i, : counts[i]] = blocks
        at = np.arange(context - new, context)
        positions.append(at)
        slots.append(blocks[at // BLOCK_SIZE] * BLOCK_SIZE + at % BLOCK_SIZE)
    new_tokens = np.array([new for new, _ in sequences])
    starts = np.concatenate([[0], np.cumsum(new_tokens)])
    total = int(starts[-1])
    return RaggedBatch(
        token_ids=(np.arange(total) % 97).astype(np.int32),
        positions=np.concatenate(positions).astype(np.int32),
        slots=np.concatenate(slots).astype(np.int32),
        starts=starts.astype(np.int32),
        context_lens=np.array([context for _, context in sequences], dtype=np.int32),
        block_tables=tables,
        logit_rows=(starts[1:] - 1).astype(np.int32),
    )


def time_step(runner: Runner, sequences: Sequence[SequenceShape], *, repeats: int) -> tuple[StepShape, float]:
    """The shape and the median seconds of such a step; one step before does not count.

    Short steps are repeated more often than asked, for `_SHORT_S` together.
    """
    batch = step_batch(sequences, runner.num_blocks)
    rows = [SampleRow(temperature=0.0)] * len(sequences)
    runner.step(batch, rows)
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < repeats or (
        time.perf_counter() < begun + _SHORT_S and len(seconds) < _MOST_REPEATS * repeats
    ):
        begin = time.perf_counter()
        runner.step(batch, rows)
        seconds.append(time.perf_counter() - begin)
    return StepShape.of(batch), sorted(seconds)[len(seconds) // 2]
