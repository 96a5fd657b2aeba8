"""ArbitraryScheduler: any valid plan, to find engine states that a sensible policy never reaches."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pentad.execution.scheduling import SchedulerInput, SequenceView, StepPlan


class ArbitraryScheduler:
    """Plans random chunks in random order, and preempts without reason.

    Every plan respects limits and free blocks. Unlike a real strategy it keeps state: the same
    seed and the same history give the same plans.

    Args:
        seed: of the choices.
        preempt_probability: chance per step that some running sequence loses its blocks.
    """

    name = "arbitrary"

    def __init__(self, seed: int, *, preempt_probability: float = 0.2) -> None:
        self._random = random.Random(seed)
        self.preempt_probability = preempt_probability

    def plan(self, state: SchedulerInput) -> StepPlan:
        """Some valid plan; never an empty one while anything can run."""
        preempt: list[SequenceView] = []
        if state.running and self._random.random() < self.preempt_probability:
            preempt.append(self._random.choice(state.running))
        work = self._work(state, preempt)
        if not work and not preempt and state.running:
            preempt.append(state.running[-1])  # all blocks are held by prompts in progress
            work = self._work(state, preempt)
        return StepPlan(work=tuple(work), preempt=tuple(preempt))

    def _work(self, state: SchedulerInput, preempt: Sequence[SequenceView]) -> list[tuple[SequenceView, int]]:
        gone = {seq.id for seq in preempt}
        running = [seq for seq in state.running if seq.id not in gone]
        free = state.free_blocks + sum(seq.num_private_blocks for seq in preempt)
        places = state.limits.max_sequences - len(running)
        tokens = state.limits.max_batch_tokens
        candidates = [(seq, True) for seq in running] + [(seq, False) for seq in state.waiting]
        self._random.shuffle(candidates)
        work: list[tuple[SequenceView, int]] = []
        for seq, is_running in candidates:
            done = seq.num_computed if is_running else seq.num_cached
            slots = seq.num_slots if is_running else done
            room = (seq.num_blocks + free) * state.block_size - slots
            most = min(seq.num_tokens - done + seq.num_draft, tokens, room)
            if most < 1 or (not is_running and places < 1):
                continue
            count = self._random.choice((most, self._random.randint(1, most)))
            free -= max(0, -(-(slots + count) // state.block_size) - seq.num_blocks)
            tokens -= count
            places -= not is_running
            work.append((seq, count))
            if self._random.random() < 0.1:
                break
        return work
