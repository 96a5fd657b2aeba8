"""The simulated device: a Runner that computes nothing and lets virtual time pass instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.step_shape import StepShape


class StepTimes(Protocol):
    """Predicts how long steps of a model take: a StepCost, or that of several devices together."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def form(self) -> ModelForm: ...

    def seconds(self, shape: StepShape) -> float: ...


class SimulatedRunner:
    """Drives the real engine without a model.

    A step advances the clock by its predicted time. The drawn token is a fixed function of the
    row's token and position, so whatever mixes up sequences or positions changes the output, and
    the same requests give the same tokens under every scheduler.

    Args:
        cost: predicts step times of the model on the device.
        clock: the engine's clock.
        num_blocks: KV blocks of the simulated device.
        block_size: tokens per block.
    """

    def __init__(
        self, cost: StepTimes, clock: VirtualClock, *, num_blocks: int, block_size: int = 16
    ) -> None:
        self.cost = cost
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.busy_s = 0.0
        """Virtual time spent in steps."""
        self.steps = 0
        self.tokens = 0
        """Tokens computed, prompts and recomputation included."""
        self._clock = clock
        self._drawn: dict[int, Drawn] = {}

    @property
    def spec(self) -> ModelSpec:
        return self.cost.spec

    @property
    def block_bytes(self) -> int:
        return round(self.cost.form.kv_bytes(self.spec, self.block_size))

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        self._pass_time(batch)
        drawn = self._drawn
        tokens = self._tokens(batch)
        assert len(tokens) == len(rows), f"{len(rows)} rows to draw from {len(tokens)} rows of logits"
        return [drawn.get(token) or drawn.setdefault(token, Drawn(token=token)) for token in tokens]

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        self._pass_time(batch)
        tokens = self._tokens(batch)
        logits = np.zeros((len(tokens), self.spec.vocab_size), dtype=np.float32)
        logits[np.arange(len(tokens)), tokens] = 1.0
        return logits

    def copy_block(self, source: int, target: int) -> None:
        assert 0 <= source < self.num_blocks, f"block {source} does not exist"
        assert 0 <= target < self.num_blocks, f"block {target} does not exist"

    def copy_state(self, source: int, target: int) -> None:
        assert min(source, target) >= 0, "a state lies in no row"

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        assert all(0 <= slot < self.num_blocks * self.block_size for pair in pairs for slot in pair)

    @property
    def keeps_scores(self) -> bool:
        """Nothing is attended to, so there is nothing to count."""
        return False

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        entries = self.num_blocks * self.block_size * self.spec.layers * self.spec.kv_heads
        assert not len(moves) or (moves.min() >= 0 and moves.max() < entries)

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        raise ValueError(f"no attention is counted of {len(pages)} simulated pages")

    def close(self) -> None:
        self._drawn.clear()

    def _pass_time(self, batch: RaggedBatch) -> None:
        seconds = self.cost.seconds(StepShape.of(batch))
        self._clock.advance(seconds)
        self.busy_s += seconds
        self.steps += 1
        self.tokens += len(batch.token_ids)

    def _tokens(self, batch: RaggedBatch) -> list[int]:
        """One token per logit row: a mix of the row's token and position (multiplicative hashing)."""
        ids = batch.token_ids[batch.logit_rows].astype(np.uint64)
        positions = batch.positions[batch.logit_rows].astype(np.uint64)
        mixed = ids * np.uint64(0x9E3779B97F4A7C15) + positions * np.uint64(0xC2B2AE3D27D4EB4F)
        tokens: list[int] = ((mixed >> np.uint64(29)) % np.uint64(self.spec.vocab_size)).tolist()
        return tokens
