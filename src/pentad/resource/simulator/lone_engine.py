"""LoneEngine: one engine and requests that have nothing in common, replayed without texts, blocks or events.

    now --> requests that have come --> a step, or all steps in which nothing is decided --> now --> ...

The scheduler is the one that plans live, and sees the same states at the same instants as under the real
engine, so it decides the same: records and counts are equal to the last bit, which the tests compare. What
is left out is what such requests have no use for: tokens, of which only the last counts, names of blocks, and
the queue of a world, since nothing but an arrival happens beside the engine's own steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from pentad.errors import ContextLengthExceeded, DeadlineExceeded, Overloaded
from pentad.execution.hints import turn_hints
from pentad.execution.pace import Pace
from pentad.execution.scheduling import (
    BatchScheduler,
    EngineLimits,
    SchedulerInput,
    SteadyScheduler,
    StepPlan,
)
from pentad.execution.served import ServedTokens
from pentad.execution.steady import MOST_STEPS
from pentad.execution.step_samples import StepSamples
from pentad.resource.simulator.lone_sequence import CountedBlocks, LoneSequence
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.simulator.trace import TraceItem, last_token_of
from pentad.resource.step_shape import StepShape
from pentad.types import Objective, RunContext

TELL_EVERY = 256
"""Steps, or series of them, between two words on progress."""
_PLAIN = RunContext()


class LoneEngine:
    """An engine of its own virtual time; `run` replays one load.

    Cost: per step that something is decided in, what the scheduler takes and some ten microseconds; per
    series of steps in which nothing is, as much for all of them.

    Args:
        runner: predicts times and counts steps; its clock is not used.
        scheduler: plans each step.
        limits: what the engine may hold.
        name: of the engine, for the records.
        prefix_cache: whether preempted sequences find again what they left.
        seed: of the prompts' tokens.
        clipped: per item id, the tokens that were cut off it.
    """

    def __init__(
        self,
        runner: SimulatedRunner,
        scheduler: BatchScheduler,
        *,
        limits: EngineLimits,
        name: str,
        prefix_cache: bool = True,
        seed: int = 0,
        clipped: Mapping[str, int] | None = None,
    ) -> None:
        self.runner = runner
        self.records: dict[str, RequestRecord] = {}
        self._scheduler = scheduler
        self._steady = scheduler.steady if isinstance(scheduler, SteadyScheduler) else None
        self._limits = limits
        self._name = name
        self._seed = seed
        self._clipped = clipped or {}
        self._model = runner.spec.name
        self._longest = min(runner.spec.context_length, runner.num_blocks * runner.block_size)
        self._blocks = CountedBlocks(runner.num_blocks, runner.block_size, finds=prefix_cache)
        self._waiting: list[LoneSequence] = []
        self._running: list[LoneSequence] = []
        self._served = ServedTokens()
        self._samples = StepSamples()
        self._pace = Pace()
        self._kept: object = None
        self._come: Sequence[TraceItem] = ()
        self._next = 0
        """Which of them comes next."""
        self._ended = 0

    def run(self, items: Sequence[TraceItem], tell: Callable[[int], None] | None = None) -> None:
        """Replays the items; afterwards `records` has one for each.

        Args:
            items: that have nothing in common, see `stand_alone`.
            tell: hears now and then how many requests have ended.
        """
        self._come = come = sorted(items, key=attrgetter("arrival_s"))
        now_s = -math.inf
        turns = 0
        while True:
            while self._next < len(come) and come[self._next].arrival_s <= now_s:
                self._arrive()
            if self._running or self._waiting:
                now_s = self._go(now_s)
            elif self._next < len(come):
                now_s = come[self._next].arrival_s
            else:
                break
            turns += 1
            if tell is not None and turns % TELL_EVERY == 0:
                tell(self._ended)
        self._blocks.check_integrity()

    def _arrive(self) -> None:
        """The next request comes, and waits or is refused."""
        item = self._come[self._next]
        self._next += 1
        record = RequestRecord(
            item=item,
            arrived_s=item.arrival_s,
            clipped_tokens=self._clipped.get(item.id, 0),
            model=item.model or self._model,
            engine=self._name,
        )
        self.records[item.id] = record
        if item.prompt_tokens + item.output_tokens > self._longest:
            record.refusal = ContextLengthExceeded.code
            self._ended += 1
            return
        if len(self._waiting) >= self._limits.max_waiting:
            record.refusal = Overloaded.code
            self._ended += 1
            return
        context, hints = _PLAIN, None
        if item.objective is not None or item.data_label is not None:
            context = RunContext(objective=item.objective or Objective(), data_label=item.data_label)
            hints = turn_hints(context)
        self._waiting.append(LoneSequence(record, self._next, context, hints))
        self._served.enter(item.tenant)

    def _state(self, now_s: float) -> SchedulerInput:
        return SchedulerInput(
            now_s=now_s,
            waiting=self._waiting,
            running=self._running,
            free_blocks=self._blocks.available,
            block_size=self.runner.block_size,
            limits=self._limits,
            pace=self._pace,
            served=self._served.shown(),
            steps=self._samples,
            steps_total=self._samples.total,
            kept=self._kept,
        )

    def _go(self, now_s: float) -> float:
        """Steps from now on, one or several; when the last of them ends."""
        state = self._state(now_s)
        if self._steady is not None and self._kept is None and self._decodes() and self._steady(state):
            steps = self._steps()
            if steps:
                return self._decode(state, steps)
        return self._step(state)

    def _decodes(self) -> bool:
        """Whether all that run compute one token a step; the latest, who may not, is asked first."""
        running = self._running
        if not running:
            return False
        for i in range(len(running) - 1, -1, -1):
            seq = running[i]
            if seq.num_tokens - seq.num_computed != 1 or not seq.drawn:
                return False
        return True

    def _steps(self) -> int:
        """Steps until the first that runs is complete; fewer where blocks do not suffice."""
        running, size = self._running, self.runner.block_size
        steps = min(MOST_STEPS, min([seq.end_tokens - seq.num_tokens for seq in running]))
        if len(running) * (steps // size + 1) <= self._blocks.available:
            return steps
        while steps > 0:
            grown = sum(-(-(seq.num_computed + steps) // size) - seq.num_blocks for seq in running)
            if grown <= self._blocks.available:
                return steps
            steps //= 2
        return 0

    def _decode(self, state: SchedulerInput, steps: int) -> float:
        """Takes steps in which each that runs gets a token, until one is complete or somebody has come."""
        running, runner = self._running, self.runner
        contexts = [seq.num_computed + 1 for seq in running]
        seconds = runner.decode_seconds(contexts, steps)
        times = np.empty((2, steps + 1))
        times[0, 0], times[1, 0] = state.now_s, runner.busy_s
        times[:, 1:] = seconds
        times = np.add.accumulate(times, axis=1)
        count = self._until_somebody_comes(state, times[0])
        runner.busy_s = float(times[1, count])
        runner.steps += count
        runner.tokens += count * len(running)
        instants = times[0, : count + 1]
        spent = (instants[1:] - instants[:-1]).tolist()
        self._samples.add_decodes(len(running), sum(contexts), spent)
        self._pace = self._pace.after_all(len(running), spent)
        came = instants[1:].tolist()
        grow = self._blocks.grow
        complete = []
        for seq in running:
            seq.record.token_times_s += came
            seq.num_tokens += count
            seq.num_computed = computed = seq.num_computed + count
            grow(seq, computed)
            if seq.num_tokens >= seq.end_tokens:
                complete.append(seq)
        for seq in complete:
            self._end(seq, came[-1])
        end_s: float = came[-1]
        return end_s

    def _until_somebody_comes(self, state: SchedulerInput, instants: npt.NDArray[np.float64]) -> int:
        """Steps until the scheduler may want to do something about who comes; those who come are let in."""
        come, last_s = self._come, instants[-1]
        full = len(self._running) >= self._limits.max_sequences
        while self._next < len(come) and (at_s := come[self._next].arrival_s) <= last_s:
            if full:
                self._arrive()
                if self._steady is not None and not self._served.shown() and self._steady(state):
                    continue
            return max(1, int(np.searchsorted(instants[:-1], at_s, side="left")))
        return len(instants) - 1

    def _step(self, state: SchedulerInput) -> float:
        """One planned step."""
        plan = self._scheduler.plan(state)
        self._kept = plan.keep
        work: Sequence[tuple[LoneSequence, int]] = plan.work  # type: ignore[assignment]  # its own views
        self._served.add(work)
        refused: list[LoneSequence] = [refusal.seq for refusal in plan.refuse]  # type: ignore[misc]
        for seq in refused:
            self._waiting.remove(seq)
            self._served.leave(seq.tenant)
        preempted: Sequence[LoneSequence] = plan.preempt  # type: ignore[assignment]
        for seq in preempted:
            self._preempt(seq)
        for seq, _ in work:
            if not seq.running:
                self._admit(seq)
        end_s = self._compute(work, state.now_s) if work else state.now_s
        self._check(plan, state.now_s, end_s)
        for seq in refused:
            self._finish(seq, end_s)
            seq.record.refusal = DeadlineExceeded.code
        return end_s

    def _check(self, plan: StepPlan, now_s: float, end_s: float) -> None:
        """Asserts what a scheduler promises, but for the blocks, whose books assert it."""
        name, limits = self._scheduler.name, self._limits
        assert end_s > now_s or plan.refuse, f"{name} has work and makes no progress"
        assert len(self._running) <= limits.max_sequences, f"{name} planned too many sequences at once"

    def _preempt(self, seq: LoneSequence) -> None:
        """Takes the blocks of a sequence, which waits in front of those that have never run."""
        self._blocks.release(seq)
        self._running.remove(seq)
        seq.running = False
        seq.num_preemptions += 1
        waiting = self._waiting
        at = 0
        while at < len(waiting) and waiting[at].num_preemptions and waiting[at].order < seq.order:
            at += 1
        waiting.insert(at, seq)

    def _admit(self, seq: LoneSequence) -> None:
        waiting = self._waiting
        if waiting[0] is seq:
            del waiting[0]
        else:
            waiting.remove(seq)
        self._running.append(seq)
        seq.running = True
        self._blocks.start(seq)
        if not seq.started:
            seq.started = True
            seq.first_cached_tokens = seq.num_computed

    def _compute(self, work: Sequence[tuple[LoneSequence, int]], now_s: float) -> float:
        """Computes so many tokens of each; when the step ends."""
        runner, grow = self.runner, self._blocks.grow
        parts: list[tuple[int, int]] = []
        rows = decodes = 0
        for seq, count in work:
            count = min(count, seq.num_tokens - seq.num_computed)
            end = seq.num_computed + count
            grow(seq, end)
            parts.append((count, end))
            rows += end == seq.num_tokens
            decodes += count == 1
        shape = StepShape.from_sequences(parts, rows=rows)
        tokens = shape.tokens
        assert tokens <= self._limits.max_batch_tokens, f"{self._scheduler.name} planned {tokens} tokens"
        seconds = runner.cost.seconds(shape)
        end_s = now_s + seconds
        spent_s = end_s - now_s
        runner.busy_s += seconds
        runner.steps += 1
        runner.tokens += tokens
        self._pace = self._pace.after(tokens, spent_s)
        self._samples.add_counts(
            len(work), decodes, tokens - decodes, shape.slots, shape.chunk_pairs, spent_s, rows > 0
        )
        complete = []
        for (seq, _), (_, end) in zip(work, parts, strict=True):
            seq.num_computed = end
            if end < seq.num_tokens:
                seq.chunk_s, seq.chunk_ended_s = spent_s, end_s
                continue
            seq.num_tokens += 1
            seq.drawn = True
            seq.record.token_times_s.append(end_s)
            if seq.num_tokens >= seq.end_tokens:
                complete.append(seq)
        for seq in complete:
            self._end(seq, end_s)
        return end_s

    def _end(self, seq: LoneSequence, at_s: float) -> None:
        """A sequence is complete."""
        self._blocks.release(seq)
        self._running.remove(seq)
        self._served.leave(seq.tenant)
        self._finish(seq, at_s)
        last = last_token_of(seq.record.item, self.runner.spec.vocab_size, seed=self._seed)
        seq.record.tokens = self.runner.answer(last, seq.prompt_tokens, seq.num_generated)

    def _finish(self, seq: LoneSequence, at_s: float) -> None:
        record = seq.record
        record.finished_s = at_s
        record.preemptions = seq.num_preemptions
        record.cached_tokens = min(seq.first_cached_tokens, seq.prompt_tokens)
        self._ended += 1
