"""Engine: continuous batching over one runner. `step()` is the whole story; read it first."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

from pentad.errors import Conflict, PentadError
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.batching import Work
from pentad.execution.checks import (
    blocks_of,
    check_memory,
    check_plan,
    check_queue_room,
    check_queues,
    check_requests,
    check_window,
    max_sequence_slots,
    max_sequence_tokens,
)
from pentad.execution.counters import Counters
from pentad.execution.failures import deadline_failure, runner_failure, sequence_failure
from pentad.execution.kv.cache import KVCache
from pentad.execution.kv.eviction import KVEviction
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.kv.policy_cache import kv_cache
from pentad.execution.kv.retention import Retention
from pentad.execution.kv.store import BlockStore
from pentad.execution.memory import FreeMemory
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.runner import CacheLost, CountingRunner, Runner, SteadyRunner
from pentad.execution.scheduling import (
    BatchScheduler,
    EngineLimits,
    SchedulerInput,
    SteadyScheduler,
    StepPlan,
)
from pentad.execution.scoring import bounded, take_scores
from pentad.execution.sequence import Sequence, note_decisions
from pentad.execution.served import RunServices, ServedTokens
from pentad.execution.speculation.stage import Speculation
from pentad.execution.steady import SteadySteps, SteadyTokens, decodes_only, series, steps_of, take
from pentad.execution.step import StepExecutor, Taken
from pentad.execution.step_samples import StepSamples
from pentad.execution.waiting_queue import WaitingQueue
from pentad.types import Clock, FinishReason


class Engine:
    """Generates tokens for many sequences at once on one runner.

    Driven by one thread; `validate`, `refuse_if_full` and `stats` may be called from others.
    Invariant: after each step the blocks held are exactly those of the sequences running, so an
    idle engine holds none. Cost per step beside the runner: some microseconds per sequence.

    Args:
        runner: the device; closed together with the engine.
        scheduler: plans each step.
        limits: what the engine may hold.
        clock: instants of the records; a virtual clock when simulated.
        prefix_cache: keep full blocks and find them again, within a tenant and cache salt.
        speculation: drafts tokens, so that a step may give a sequence several; closed as well.
        kv_policy: says which cached keys and values stay; None keeps all.
        kv_eviction: which texts stay cached over the pauses of their runs; None: those announced.
        kv_store: keeps the blocks of texts that go on, beside the pool; closed as well.
        memory: what is free; requests that it would not do for are refused. None asks nobody.
        check_invariants: check the books after every step; slow, for tests and doubt.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: BatchScheduler,
        *,
        limits: EngineLimits,
        clock: Clock = time.monotonic,
        prefix_cache: bool = True,
        speculation: Speculation | None = None,
        kv_policy: KVPolicy | None = None,
        kv_eviction: KVEviction | None = None,
        kv_store: BlockStore | None = None,
        memory: FreeMemory | None = None,
        check_invariants: bool = False,
    ) -> None:
        if speculation is not None:
            check_window(runner.spec)
        self.runner = runner
        self.limits = limits
        self.clock = clock
        self._scheduler = scheduler
        self._speculation = speculation
        self._memory = memory
        self._promised_blocks = 0
        """Blocks that all sequences here may come to hold, were none shared."""
        self._check_invariants = check_invariants
        self.max_sequence_tokens = max_sequence_tokens(runner)
        """The longest sequence, prompt and answer, that this engine can hold."""
        self._kv = kv_cache(
            runner,
            kv_policy,
            max_sequences=limits.max_sequences,
            max_tokens=max_sequence_slots(runner),
            prefix_cache=prefix_cache,
            speculation=speculation is not None,
            store=kv_store,
        )
        self._runs = RunServices()
        if self._kv.prefix is not None and limits.kept_fraction:
            kept = limits.kept_fraction
            self._kv.retention = Retention(self._kv.pool, kept, clock, kv_eviction, self._runs)
        self._sequences: dict[str, Sequence] = {}
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []
        self._outputs: list[StepOutput] = []
        self._served = ServedTokens()
        self._samples = StepSamples()
        self._kept: object = None
        """What the scheduler wants to be shown again."""
        self._counters = Counters()
        self._computing = StepExecutor(runner, self._kv, speculation, self._counters, clock)
        self._order = itertools.count()
        others = (speculation, kv_store, self._kv.states, runner.spec.encoder)
        plain = all(part is None for part in others) and type(self._kv) is KVCache and not check_invariants
        self._steady_runner = runner if plain and isinstance(runner, SteadyRunner) else None
        self._steady_scheduler = scheduler if isinstance(scheduler, SteadyScheduler) else None
        self.failures_in_a_row = 0
        """Steps that the runner failed since its latest success."""

    def add(self, *requests: TokenRequest) -> None:
        """Takes a request, or all choices of one; either all of them are queued or none.

        Choices given together that have the same prompt compute it once and share its blocks.

        Raises:
            InvalidRequest, ContextLengthExceeded: see `validate`.
            Conflict: the id is in use.
            Overloaded: the waiting queue is full.
            Unavailable: memory is short.
        """
        self.validate(*requests)
        for request in requests:
            if request.id in self._sequences:
                raise Conflict(f"request id {request.id!r} is in use", hint="give each request its own id")
        self.refuse_if_full(*requests)
        now_s = self.clock()
        sequences = [Sequence(request, next(self._order), now_s, self._kv) for request in requests]
        self._sequences |= {seq.id: seq for seq in sequences}
        self._promised_blocks += blocks_of(requests, self.runner.block_size)
        self._waiting.enter(sequences)
        for seq in sequences:
            self._served.enter(seq.tenant)
            self._runs.enter(seq)
            if self._kv.retention is not None:
                self._kv.retention.arrived(seq)

    def validate(self, *requests: TokenRequest) -> None:
        """Raises what `add` would raise for these requests whatever the load; see `check_requests`."""
        check_requests(requests, self.runner, self.limits)

    def refuse_if_full(self, *requests: TokenRequest) -> None:
        """Raises Overloaded when these would pass the bound of the waiting queue, Unavailable when memory
        would not do for them and those that are here; with none, when it is short already."""
        check_queue_room(len(self._waiting), len(requests), self.limits, self._counters, self.clock())
        if self._memory is not None:
            promised = self._promised_blocks + blocks_of(requests, self.runner.block_size)
            untouched = min(promised, self._kv.pool.num_blocks) - self._kv.pool.touched
            check_memory(self._memory.bytes(), requests, max(0, untouched) * self.runner.block_bytes)

    def cancel(self, id: str) -> bool:
        """Ends a sequence now and gives its blocks back; False when there is none of that id.

        Its last StepOutput, with finish `cancelled`, comes out of the next step.
        """
        seq = self._sequences.get(id)
        if seq is None:
            return False
        self._end(seq, finish="cancelled")
        return True

    @property
    def steps(self) -> int:
        """Steps that the runner has completed."""
        return self._counters.steps

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything: sequences unfinished, or outputs not yet handed out."""
        return bool(self._sequences or self._outputs)

    def step(self) -> list[StepOutput]:
        """One iteration: draft, schedule, preempt, allocate, run, verify, commit.

        Returns what happened to whom; a sequence's last output has `finish` or `error`.
        """
        started_s = self.clock()
        if self._speculation is not None:
            self._speculation.propose(self._running, self._waiting.visible, self._kv, self.limits, self.clock)
        plan = self._schedule()
        self._refuse(plan)
        self._preempt(plan)
        work = self._admit(plan, started_s)
        rows = self._rows(work)
        copies = self._kv.grow(work)
        if self._check_invariants:
            self._kv.check_writes(work)
        try:
            drawn = self._computing.run(work, rows, copies)
            taken = self._computing.verify(work, drawn)
        except CacheLost as error:
            self._begin_again(error)
        except Exception as error:
            self._fail(work, error)
        else:
            spent_s = self.clock() - started_s
            self._runs.add(work, spent_s)
            self._samples.add(work, spent_s)
            self._commit(work, taken, started_s)
            for seq, lost in self._kv.settle(work, started_s):
                self._lose(seq, lost)
        self._kv.save(sum(count for _, count in work), idle=not self._sequences)
        self._counters.step_seconds += self.clock() - started_s
        if self._check_invariants:
            self.check_integrity()
        outputs, self._outputs = self._outputs, []
        return outputs

    def steady(self) -> SteadySteps | None:
        """The steps from now on in which each running sequence gets one token and nothing else happens, as
        long as nobody comes; None where that is not known. Of use to simulations: nothing is changed."""
        runner, scheduler = self._steady_runner, self._steady_scheduler
        if runner is None or scheduler is None or not self._running or self._outputs:
            return None
        if not decodes_only(self._running):
            return None
        steps = steps_of(self._running, self._kv, self.runner.block_size)
        state = self._state(self.clock())
        if steps < 2 or not scheduler.steady(state):
            return None
        plan = scheduler.plan(state)
        others = plan.preempt or plan.decisions or plan.refuse
        if others or plan.keep is not None or self._kept is not None:
            return None
        if len(plan.work) != len(self._running):
            return None
        order = [self._sequences[view.id] for view, _ in plan.work]
        return series(order, runner, steps, state.now_s)

    def take(self, steady: SteadySteps, count: int) -> list[SteadyTokens]:
        """Takes the first `count` steps of a series that began when nobody had come since; the clock is where
        the last of them ends, or later."""
        assert self._steady_runner is not None, "only a runner that knows its times is steady"
        given, self._computing.pace = take(
            steady,
            count,
            runner=self._steady_runner,
            kv=self._kv,
            runs=self._runs,
            counters=self._counters,
            samples=self._samples,
            pace=self._computing.pace,
            block_size=self.runner.block_size,
        )
        return given

    def _state(self, now_s: float) -> SchedulerInput:
        return SchedulerInput(
            now_s=now_s,
            waiting=self._waiting.visible,
            running=self._running,
            free_blocks=self._kv.pool.available,
            block_size=self.runner.block_size,
            limits=self.limits,
            pace=self._computing.pace,
            served=self._served.shown(),
            runs=self._runs.shown,
            steps=self._samples,
            steps_total=self._samples.total,
            kept=self._kept,
        )

    def _schedule(self) -> StepPlan:
        if not self._sequences:
            return StepPlan()
        now_s = self.clock()
        plan = self._scheduler.plan(self._state(now_s))
        self._counters.scheduler_seconds += self.clock() - now_s
        check_plan(plan, self._scheduler.name, self._sequences, len(self._running), self.limits)
        note_decisions(plan.decisions, self._sequences)
        self._served.add(plan.work)
        self._kept = plan.keep
        return plan

    def _refuse(self, plan: StepPlan) -> None:
        """Ends those that the scheduler expects to miss what they wish."""
        for refusal in plan.refuse:
            self._end(self._sequences[refusal.seq.id], error=deadline_failure(refusal))

    def _preempt(self, plan: StepPlan) -> None:
        """Takes the blocks of the preempted; they wait in front and are recomputed later."""
        for view in plan.preempt:
            self._lose(self._sequences[view.id])

    def _lose(self, seq: Sequence, error: Exception | None = None) -> None:
        """Takes the blocks of a running sequence, which is computed again, or ends with an error."""
        if error is not None:
            self._end(seq, error=sequence_failure(seq, error))
            return
        self._kv.release(seq)
        self._running.remove(seq)
        seq.num_preemptions += 1
        self._waiting.push(seq)
        self._counters.preemptions += 1

    def _admit(self, plan: StepPlan, now_s: float) -> Work:
        """The plan's work on our own sequences; those that waited are started."""
        work: Work = []
        new = [seq for view, _ in plan.work if not (seq := self._sequences[view.id]).running]
        for seq in new:
            self._waiting.remove(seq)
            self._running.append(seq)
            self._kv.start(seq)
        for seq in new:
            self._kv.load(seq)
            if seq.admit(now_s):
                self._counters.prompt_tokens += seq.prompt_tokens
        for view, count in plan.work:
            seq = self._sequences[view.id]
            todo = len(seq.tokens) - seq.num_computed
            if seq.num_draft and seq.draft is not None:
                seq.draft = seq.draft.cut(count - todo)
                todo += seq.num_draft
            # A choice finds more than was planned when its leader has just resumed in this step.
            work.append((seq, min(count, todo)))
        return self._kv.paced(bounded(work))

    def _rows(self, work: Work) -> list[SampleRow]:
        """How to draw behind each last and each drafted token; ends those whose constraint breaks."""
        rows: list[SampleRow] = []
        for seq, count in tuple(work):
            if seq.scores is not None:
                rows += seq.scores.rows(seq.num_computed, count)
            if seq.num_computed + count >= len(seq.tokens):
                try:
                    if seq.num_draft and seq.draft is not None:
                        rows += seq.draft.rows
                    else:
                        rows.append(seq.sample_row())
                except Exception as error:
                    self._end(seq, error=sequence_failure(seq, error))
                    work.remove((seq, count))
        return rows

    def _fail(self, work: Work, error: Exception) -> None:
        """Ends all sequences of a step that the runner failed."""
        self.failures_in_a_row += 1
        for seq, _ in work:
            self._end(seq, error=runner_failure(seq, error))

    def _begin_again(self, lost: CacheLost) -> None:
        """Has all running sequences computed again, and finds nothing that was cached before."""
        for seq in tuple(self._running):
            seq.note(replace(lost.decision, at_s=self.clock()))
            self._lose(seq)
        self._kv.forget()

    def _commit(self, work: Work, taken: Taken, started_s: float) -> None:
        """Advances every sequence of the step and hands out what it got."""
        now_s = self.clock()
        if work:
            self.failures_in_a_row = 0
        for (seq, count), drawn in zip(work, taken, strict=True):
            seq.num_computed += count
            if drawn:
                self._waiting.free_followers(seq)
                self._take(seq, drawn, now_s)
            else:
                seq.chunk_s, seq.chunk_ended_s = now_s - started_s, now_s
                self._kv.register(seq)

    def _take(self, seq: Sequence, drawn: tuple[Drawn, ...], now_s: float) -> None:
        """Appends tokens to their sequence, which may end with one of them."""
        given, finish, raised = seq.extend(drawn)
        if seq.first_token_s is None and given:
            seq.first_token_s = now_s
        self._counters.generation_tokens += len(given)
        if finish is not None or raised is not None:  # what was accepted behind the end is not part of it
            seq.num_computed = min(seq.num_computed, len(seq.tokens))
        self._kv.register(seq)
        if finish is None and raised is None:
            self._outputs.append(StepOutput(id=seq.id, drawn=given, prompt=take_scores(seq)))
        else:
            error = None if raised is None else sequence_failure(seq, raised)
            self._end(seq, finish=finish, error=error, drawn=given)

    def _end(
        self,
        seq: Sequence,
        *,
        finish: FinishReason | None = None,
        error: PentadError | None = None,
        drawn: tuple[Drawn, ...] = (),
    ) -> None:
        """Takes the sequence out, gives its blocks back and tells its consumer."""
        if seq.running:
            if finish in ("stop", "length"):
                self._kv.ended(seq)
            self._kv.release(seq)
            self._running.remove(seq)
        else:
            self._waiting.remove(seq)
            if self._kv.retention is not None:
                self._kv.retention.left(seq)
        self._waiting.replace_leader(seq)
        del self._sequences[seq.id]
        self._served.leave(seq.tenant)
        self._promised_blocks -= blocks_of((seq.request,), self.runner.block_size)
        if self._speculation is not None:
            self._speculation.forget(seq.id)
        stats = seq.stats(now_s := self.clock())
        self._counters.ended(finish, now_s)
        self._outputs.append(
            StepOutput(
                id=seq.id, drawn=drawn, prompt=take_scores(seq), finish=finish, error=error, stats=stats
            )
        )

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name; sums since the start, times in seconds of the engine's clock."""
        queues = {"running": len(self._running), "waiting": len(self._waiting)}
        drafts = {} if self._speculation is None else self._speculation.stats()
        own = self.runner.stats() if isinstance(self.runner, CountingRunner) else {}
        return queues | self._kv.stats() | self._counters.as_dict() | drafts | own

    def check_integrity(self) -> None:
        """Raises AssertionError unless the books agree: queues, references, tables and blocks."""
        check_queues(self._running, list(self._waiting), self._sequences)
        self._kv.check_integrity(self._running)

    def cancel_all(self) -> list[StepOutput]:
        """Cancels every sequence; returns what a step would still have handed out."""
        for id in list(self._sequences):
            self.cancel(id)
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self) -> None:
        """Cancels every sequence and closes runner and speculation. The engine is not used again."""
        self.cancel_all()
        self._kv.close()
        if self._speculation is not None:
            self._speculation.close()
        self.runner.close()
