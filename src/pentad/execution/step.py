"""StepExecutor: a step's work on the runner, and what comes of the tokens drafted for it."""

from __future__ import annotations

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.batching import Work, policy_batch, ragged_batch, source_batch, with_states
from pentad.execution.counters import Counters
from pentad.execution.kv.cache import Copy, KVCache
from pentad.execution.kv.policy_cache import PolicyCache
from pentad.execution.pace import Pace
from pentad.execution.runner import Runner, StateRunner, WorkRunner
from pentad.execution.scoring import keep_scores
from pentad.execution.speculation.stage import Speculation
from pentad.types import Clock

Taken = list[tuple[Drawn, ...]]
"""What a step gives each of its sequences: nothing inside its prompt, else one token, or several."""


class StepExecutor:
    """Runs steps and verifies drafts. Whatever the runner raises passes through."""

    __slots__ = (
        "_arithmetic",
        "_clock",
        "_counters",
        "_encodes",
        "_kv",
        "_policy",
        "_runner",
        "_speculation",
        "_states",
        "pace",
    )

    def __init__(
        self, runner: Runner, kv: KVCache, speculation: Speculation | None, counters: Counters, clock: Clock
    ) -> None:
        self._runner = runner
        self._kv = kv
        self._policy = kv if isinstance(kv, PolicyCache) else None
        self._states = kv.states
        self._encodes = runner.spec.encoder is not None
        self._speculation = speculation
        self._counters = counters
        self._clock = clock
        plain = self._policy is None and self._states is None and speculation is None
        takes = plain and not self._encodes and isinstance(runner, WorkRunner)
        self._arithmetic = runner if takes and isinstance(runner, WorkRunner) else None
        """A runner that needs no arrays of what it computes."""
        self.pace = Pace()
        """How long steps took lately."""

    def run(self, work: Work, rows: list[SampleRow], copies: list[Copy]) -> list[Drawn]:
        """One draw per row; the time that it takes teaches what drafts cost."""
        if not work:
            return []
        if self._arithmetic is not None and not copies and all(seq.scores is None for seq, _ in work):
            started_s = self._clock()
            drawn = self._arithmetic.step_work(work)
            spent_s = self._clock() - started_s
            self._counters.runner_seconds += spent_s
            self._counters.steps += 1
            self.pace = self.pace.after(sum(count for _, count in work), spent_s)
            return drawn
        batch = self._batch(work)
        if not batch.tokens:  # beginnings of sources, which are encoded whole
            return []
        started_s = self._clock()
        succeeded = False
        try:
            for source, target in copies:
                self._runner.copy_block(source, target)
            if self._states is not None and isinstance(self._runner, StateRunner):
                for source, target in self._states.take_copies():
                    self._runner.copy_state(source, target)
            drawn = self._runner.step(batch, rows)
            succeeded = True
        finally:
            if self._states is not None:
                self._states.settle(succeeded=succeeded)
            spent_s = self._clock() - started_s
            self._counters.runner_seconds += spent_s
        if len(drawn) != len(rows):
            raise RuntimeError(f"the runner drew {len(drawn)} tokens for {len(rows)} rows")
        if self._speculation is not None and len(rows) == len(batch.token_ids):
            self._speculation.costs.observe(len(rows), spent_s)
        self._counters.steps += 1
        self.pace = self.pace.after(batch.tokens, spent_s)
        return keep_scores(work, drawn)

    def _batch(self, work: Work) -> RaggedBatch:
        if self._policy is not None:
            return policy_batch(work, self._policy, self._runner.block_size)
        if self._encodes:
            return source_batch(work, self._kv, self._runner.block_size)
        batch = ragged_batch(work, self._kv.tables, self._runner.block_size)
        return batch if self._states is None else with_states(batch, work, self._kv)

    def verify(self, work: Work, drawn: list[Drawn]) -> Taken:
        """What each sequence gets of the draws.

        Afterwards `work` counts accepted drafts only, and their keys and values lie in order.
        """
        if self._speculation is None:
            if len(drawn) == len(work):
                return [(token,) for token in drawn]
            tokens = iter(drawn)
            return [
                (next(tokens),) if seq.num_computed + count == len(seq.tokens) else () for seq, count in work
            ]
        taken, moves = self._speculation.settle(work, drawn, self._kv)
        if moves:
            self._runner.copy_slots(moves)
        return taken
