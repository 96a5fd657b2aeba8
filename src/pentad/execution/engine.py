"""Engine: continuous batching over one runner. `step()` is the whole story; read it first."""

from __future__ import annotations

import itertools
import time

from pentad.errors import Conflict, Overloaded, PentadError
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.batching import Work, ragged_batch
from pentad.execution.checks import check_plan, check_queues, check_requests, max_sequence_tokens
from pentad.execution.counters import Counters
from pentad.execution.failures import runner_failure, sequence_failure
from pentad.execution.kv.cache import Copy, KVCache
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import BatchScheduler, EngineLimits, SchedulerInput, StepPlan
from pentad.execution.sequence import Sequence, note_decisions
from pentad.execution.waiting import WaitingQueue
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
        check_invariants: bool = False,
    ) -> None:
        self.runner = runner
        self.limits = limits
        self.clock = clock
        self._scheduler = scheduler
        self._check_invariants = check_invariants
        self.max_sequence_tokens = max_sequence_tokens(runner)
        """The longest sequence, prompt and answer, that this engine can hold."""
        self._kv = KVCache(
            runner.num_blocks,
            runner.block_size,
            max_sequences=limits.max_sequences,
            max_tokens=self.max_sequence_tokens,
            prefix_cache=prefix_cache,
        )
        self._sequences: dict[str, Sequence] = {}
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []
        self._outputs: list[StepOutput] = []
        self._counters = Counters()
        self._order = itertools.count()
        self.failures_in_a_row = 0
        """Steps that the runner failed since its latest success."""

    def add(self, *requests: TokenRequest) -> None:
        """Takes a request, or all choices of one; either all of them are queued or none.

        Choices given together that have the same prompt compute it once and share its blocks.

        Raises:
            InvalidRequest, ContextLengthExceeded: see `validate`.
            Conflict: the id is in use.
            Overloaded: the waiting queue is full.
        """
        self.validate(*requests)
        for request in requests:
            if request.id in self._sequences:
                raise Conflict(f"request id {request.id!r} is in use", hint="give each request its own id")
        self.refuse_if_full(len(requests))
        now_s = self.clock()
        leaders: dict[tuple[object, ...], Sequence] = {}
        for request in requests:
            seq = Sequence(request, next(self._order), now_s, self._kv)
            self._sequences[seq.id] = seq
            leader = leaders.setdefault((request.prompt, request.tenant, request.cache_salt), seq)
            if leader is seq or seq.prompt_tokens == 1:
                self._waiting.push(seq)
            else:
                self._waiting.hold(seq, leader)

    def validate(self, *requests: TokenRequest) -> None:
        """Raises what `add` would raise for these requests whatever the load; see `check_requests`."""
        check_requests(requests, self.runner, self.limits)

    def refuse_if_full(self, count: int) -> None:
        """Raises Overloaded when `count` more requests would pass the bound of the waiting queue."""
        waiting = len(self._waiting)
        if waiting + count > self.limits.max_waiting:
            self._counters.refused += count
            raise Overloaded(
                f"{waiting} requests are waiting, at most {self.limits.max_waiting} can",
                retry_after_s=self._counters.drain_s(waiting, self.clock()),
                hint="try again later or raise --max-waiting",
            )

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
        """One iteration: schedule, preempt, allocate, run, commit.

        Returns what happened to whom; a sequence's last output has `finish` or `error`.
        """
        started_s = self.clock()
        plan = self._schedule(started_s)
        self._preempt(plan)
        work = self._admit(plan, started_s)
        rows = self._rows(work)
        copies = self._kv.grow(work)
        drawn = self._run(work, rows, copies)
        self._commit(work, drawn)
        self._counters.step_seconds += self.clock() - started_s
        if self._check_invariants:
            self.check_integrity()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _schedule(self, now_s: float) -> StepPlan:
        if not self._sequences:
            return StepPlan()
        state = SchedulerInput(
            now_s=now_s,
            waiting=self._waiting.visible,
            running=self._running,
            free_blocks=self._kv.pool.available,
            block_size=self.runner.block_size,
            limits=self.limits,
        )
        plan = self._scheduler.plan(state)
        self._counters.scheduler_seconds += self.clock() - now_s
        check_plan(plan, self._scheduler.name, self._sequences, len(self._running), self.limits)
        note_decisions(plan.decisions, self._sequences)
        return plan

    def _preempt(self, plan: StepPlan) -> None:
        """Takes the blocks of the preempted; they wait in front and are recomputed later."""
        for view in plan.preempt:
            seq = self._sequences[view.id]
            self._kv.release(seq)
            self._running.remove(seq)
            seq.num_preemptions += 1
            self._waiting.push(seq)
            self._counters.preemptions += 1

    def _admit(self, plan: StepPlan, now_s: float) -> Work:
        """The plan's work on our own sequences; those that waited are started."""
        work: Work = []
        for view, count in plan.work:
            seq = self._sequences[view.id]
            if not seq.running:
                self._waiting.remove(seq)
                self._running.append(seq)
                self._kv.start(seq)
                if seq.admit(now_s):
                    self._counters.prompt_tokens += seq.prompt_tokens
            # A choice finds more than was planned when its leader has just resumed in this step.
            work.append((seq, min(count, len(seq.tokens) - seq.num_computed)))
        return work

    def _rows(self, work: Work) -> list[SampleRow]:
        """How to draw for each sequence that computes its last token; ends those whose constraint breaks."""
        rows: list[SampleRow] = []
        for seq, count in tuple(work):
            if seq.num_computed + count == len(seq.tokens):
                try:
                    rows.append(seq.sample_row())
                except Exception as error:
                    self._end(seq, error=sequence_failure(seq, error))
                    work.remove((seq, count))
        return rows

    def _run(self, work: Work, rows: list[SampleRow], copies: list[Copy]) -> list[Drawn]:
        """The runner's answer. If it raises, all sequences of the step end with BackendFailed."""
        if not work:
            return []
        if self._check_invariants:
            self._kv.check_writes(work)
        batch = ragged_batch(work, self._kv.tables, self.runner.block_size)
        started_s = self.clock()
        try:
            for source, target in copies:
                self.runner.copy_block(source, target)
            drawn = self.runner.step(batch, rows)
            if len(drawn) != len(rows):
                raise RuntimeError(f"the runner drew {len(drawn)} tokens for {len(rows)} rows")
        except Exception as error:
            self.failures_in_a_row += 1
            for seq, _ in work:
                self._end(seq, error=runner_failure(seq, error))
            work.clear()
            return []
        finally:
            self._counters.runner_seconds += self.clock() - started_s
        self.failures_in_a_row = 0
        self._counters.steps += 1
        return drawn

    def _commit(self, work: Work, drawn: list[Drawn]) -> None:
        """Advances every sequence of the step and hands out what was drawn."""
        now_s = self.clock()
        tokens = iter(drawn)
        for seq, count in work:
            seq.num_computed += count
            self._kv.register(seq)
            if seq.num_computed < len(seq.tokens):
                continue
            self._waiting.free_followers(seq)
            self._take(seq, next(tokens), now_s)

    def _take(self, seq: Sequence, drawn: Drawn, now_s: float) -> None:
        """Appends a drawn token to its sequence, which may end with it."""
        if seq.first_token_s is None:
            seq.first_token_s = now_s
        self._counters.generation_tokens += 1
        try:
            finish = seq.append(drawn)
        except Exception as error:
            self._end(seq, error=sequence_failure(seq, error))
            return
        if finish is None:
            self._outputs.append(StepOutput(id=seq.id, drawn=(drawn,)))
        else:
            self._end(seq, finish=finish, drawn=(drawn,))

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
            self._kv.release(seq)
            self._running.remove(seq)
        else:
            self._waiting.remove(seq)
        self._waiting.replace_leader(seq)
        del self._sequences[seq.id]
        stats = seq.stats(now_s := self.clock())
        self._counters.ended(finish, now_s)
        self._outputs.append(StepOutput(id=seq.id, drawn=drawn, finish=finish, error=error, stats=stats))

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name; sums since the start, times in seconds of the engine's clock."""
        queues = {"running": len(self._running), "waiting": len(self._waiting)}
        return queues | self._kv.stats() | self._counters.as_dict()

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
        """Cancels every sequence and closes the runner. The engine is not used again."""
        self.cancel_all()
        self.runner.close()
