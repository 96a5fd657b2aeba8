"""The simulated device: a Runner that computes nothing and lets virtual time pass instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.form import ModelForm
from pentad.execution.runner import WorkView
from pentad.execution.spec import ModelSpec
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.step_shape import StepShape

_WORD = 1 << 64


class StepTimes(Protocol):
    """Predicts how long steps of a model take: a StepCost, or that of several devices together."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def form(self) -> ModelForm: ...

    def seconds(self, shape: StepShape) -> float: ...

    def decode_seconds(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        """[at most steps] of steps that each compute one token of the same sequences; contexts are those of
        the first one."""
        ...


class SimulatedRunner:
    """Drives the real engine without a model.

    A step advances the clock by its predicted time. The drawn token is a fixed function of the
    row's token and position, so whatever mixes up sequences or positions changes the output, and
    the same requests give the same tokens under every scheduler. It is the token and a number that the
    position has, so that many steps are one sum.

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
        self.last_step_s = 0.0
        self.steps = 0
        self.tokens = 0
        """Tokens computed, prompts and recomputation included."""
        self.moved_bytes = 0
        """Keys and values that its devices sent each other to lie elsewhere."""
        self._clock = clock
        self._drawn: dict[int, Drawn] = {}
        self._sums = _sums(self.spec.vocab_size, 1024)
        """Of the positions' numbers up to each one."""
        self._numbers: list[int] = np.diff(self._sums).tolist()

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

    def step_work(self, work: Sequence[tuple[WorkView, int]]) -> list[Drawn]:
        ends = [(seq, seq.num_computed + count) for seq, count in work]
        drawing = [seq.tokens for seq, end in ends if end == len(seq.tokens)]
        shape = StepShape.from_sequences(
            [(count, end) for (_, count), (_, end) in zip(work, ends, strict=True)], rows=len(drawing)
        )
        self._pass(shape)
        self._sums_to(max(end for _, end in ends) + 1)
        numbers, vocab, drawn = self._numbers, self.spec.vocab_size, self._drawn
        tokens = [(tokens[-1] + numbers[len(tokens) - 1]) % vocab for tokens in drawing]
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
        self._pass(StepShape.of(batch))

    def _pass(self, shape: StepShape) -> None:
        seconds = self.cost.seconds(shape)
        self._clock.advance(seconds)
        self.count(shape.tokens, seconds)

    def decode_seconds(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        return self.cost.decode_seconds(contexts, steps)

    def decode(
        self, tokens: Sequence[int], contexts: Sequence[int], seconds: npt.NDArray[np.float64]
    ) -> list[list[int]]:
        steps = len(seconds)
        self.busy_s = float(np.add.accumulate(np.concatenate(((self.busy_s,), seconds)))[-1])
        self.steps += steps
        self.tokens += steps * len(tokens)
        sums = self._sums_to(max(contexts) + steps)
        vocab = self.spec.vocab_size
        return [
            ((sums[context : context + steps] + (token - sums[context - 1])) % vocab).tolist()
            for token, context in zip(tokens, contexts, strict=True)
        ]

    def drawn_after(self, token: int, context: int) -> int:
        """What is drawn behind a token that is the last of so many."""
        return drawn_token(token, context, self.spec.vocab_size)

    def count(self, tokens: int, seconds: float) -> None:
        """Enters a step that somebody else took on this device."""
        self.busy_s += seconds
        self.last_step_s = seconds
        self.steps += 1
        self.tokens += tokens

    def answer(self, last: int, prompt_tokens: int, count: int) -> list[int]:
        """The tokens that follow a prompt, which depend on its length and its last token alone."""
        sums = self._sums_to(prompt_tokens + count)
        answer: list[int] = (
            (sums[prompt_tokens : prompt_tokens + count] + (last - sums[prompt_tokens - 1]))
            % self.spec.vocab_size
        ).tolist()
        return answer

    def _sums_to(self, positions: int) -> npt.NDArray[np.int64]:
        if positions >= len(self._sums):
            self._sums = _sums(self.spec.vocab_size, 2 * positions)
            self._numbers = np.diff(self._sums).tolist()
        return self._sums

    def _tokens(self, batch: RaggedBatch) -> list[int]:
        """One token per logit row: the row's token and its position's number."""
        ids = batch.token_ids[batch.logit_rows].astype(np.int64)
        positions = batch.positions[batch.logit_rows]
        sums = self._sums_to(int(positions.max(initial=0)) + 1)
        tokens: list[int] = ((ids + sums[positions + 1] - sums[positions]) % self.spec.vocab_size).tolist()
        return tokens


def _sums(vocab_size: int, positions: int) -> npt.NDArray[np.int64]:
    """[positions + 1] sums of the numbers in front of each position, by multiplicative hashing."""
    at = np.arange(positions, dtype=np.uint64)
    mixed = (at + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    numbers = ((mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xC2B2AE3D27D4EB4F)) >> np.uint64(33)
    found = np.zeros(positions + 1, np.int64)
    np.cumsum((numbers % np.uint64(vocab_size)).astype(np.int64), out=found[1:])
    return found


def drawn_token(token: int, context: int, vocab_size: int) -> int:
    """What a SimulatedRunner draws behind a token that is the last of so many."""
    mixed = context * 0x9E3779B97F4A7C15 % _WORD
    number = (mixed ^ (mixed >> 29)) * 0xC2B2AE3D27D4EB4F % _WORD >> 33
    return (token + number % vocab_size) % vocab_size
