"""Deadlines that are kept or refused: work starts only where its end can be foretold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pentad.execution.scheduling import Refusal, SchedulerInput, SequenceView, StepPlan
from pentad.ranges import in_range
from pentad.resource.scheduling.base import StepBuilder, todo_tokens
from pentad.resource.scheduling.step_estimate import StepEstimate, estimate_of
from pentad.resource.scheduling.timetable import answer_left, timetable
from pentad.types import Objective

_NO_WISH: Final = Objective()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clockwork:
    """Starts a request only if it and all that were started before will be in time, by a timetable.

    The engine's latest steps tell how long a step takes for what it computes. With that, a timetable of all
    that run says when each would be done, every answer as long as it may be. The waiting are gone through by
    deadline: one that could not be in time even if it started now is refused before any work is spent on
    it; one that would make another late waits; else it starts and is never preempted, since blocks for
    all of its answer are kept. A request without a deadline counts as wanted `patience_s` after it came, and
    is not refused. Until enough steps were seen, requests start by deadline and nothing is refused.
    Exactness: lossless. Cost: a timetable per request that starts.

    Source: Clockwork (Gujarati et al., OSDI'20, sections 4.3 and 5). Our difference: an action is a step of
    a batch that changes from step to step, so its time comes of a fit to the batch's counts, not of a
    table by batch size; weights stay loaded.
    """

    margin: float = 0.05
    """Share by which steps are expected to take longer than fitted, beside what the fit was short by and one
    full step."""
    patience_s: float = 60.0
    """Within how long requests without a deadline want to be done."""

    def __post_init__(self) -> None:
        in_range("margin", self.margin, least=0, most=10)
        in_range("patience_s", self.patience_s, above=0)

    @property
    def name(self) -> str:
        return "clockwork"

    def plan(self, state: SchedulerInput) -> StepPlan:
        estimate = estimate_of(state)
        order = sorted(state.running, key=self._due_s)
        draft = StepBuilder(self.name, state, state.limits.max_batch_tokens, order)
        decodes = [seq for seq in order if todo_tokens(seq) == 1]
        prompts = [seq for seq in order if todo_tokens(seq) > 1]
        draft.reserve(prompts)
        draft.add_decodes(decodes, draft.budget)
        for seq in prompts:
            draft.continue_prefill(seq, draft.tokens)
        refused: list[Refusal] = []
        promised = sum(whole_blocks(seq, state.block_size) - seq.num_blocks for seq in state.running)
        for seq in sorted(state.waiting, key=self._due_s):
            hopeless = self._late(estimate, state, decodes, [seq], [seq])
            if hopeless is not None and not seq.num_computed and not seq.num_generated:
                refused.append(hopeless)
                draft.note("admit", seq.id, hopeless.wish)
                continue
            blocks = whole_blocks(seq, state.block_size)
            full = len(draft.alive) >= draft.max_sequences or promised + blocks > state.free_blocks
            if full or draft.tokens <= 0:
                continue
            coming = sorted([*prompts, seq], key=self._due_s)
            bound = self._late(estimate, state, decodes, coming, [*decodes, *coming])
            if bound is not None:
                draft.note("admit", seq.id, bound.wish, (bound.seq,))
                continue
            draft.admit(seq, draft.tokens)
            prompts = coming
            promised += blocks
        draft.break_deadlock()
        draft.add_drafts()
        return draft.plan(refuse=tuple(refused), keep=estimate)

    def _due_s(self, seq: SequenceView) -> float:
        """When it must be done, or have its first token where it wishes no more."""
        objective = seq.context.objective
        limits = [limit for limit in (objective.deadline_s, objective.ttft_s) if limit is not None]
        return seq.arrived_s + min(limits, default=self.patience_s)

    def _late(
        self,
        estimate: StepEstimate | None,
        state: SchedulerInput,
        decodes: Sequence[SequenceView],
        prompts: Sequence[SequenceView],
        judged: Iterable[SequenceView],
    ) -> Refusal | None:
        """The first of those judged that would miss its objective, were these computed; None where all keep
        it or nothing can be foretold."""
        if estimate is None or all(seq.context.objective == _NO_WISH for seq in judged):
            return None
        instants = timetable(estimate, state.limits.max_batch_tokens, decodes, prompts)
        longer = 1 + self.margin + estimate.error
        full = state.limits.max_batch_tokens
        spare_s = estimate.seconds(0, full, full, full * full / 2)
        for seq in judged:
            age_s = state.now_s - seq.arrived_s
            objective, found = seq.context.objective, instants[seq.id]
            age_s += spare_s
            end_s, first_s = age_s + found.end_s * longer, age_s + found.first_s * longer
            if objective.deadline_s is not None and end_s > objective.deadline_s:
                return Refusal(seq=seq, wish="deadline_s", limit_s=objective.deadline_s, expected_s=end_s)
            if objective.ttft_s is not None and not seq.num_generated and first_s > objective.ttft_s:
                return Refusal(seq=seq, wish="ttft_s", limit_s=objective.ttft_s, expected_s=first_s)
        return None


def whole_blocks(seq: SequenceView, block_size: int) -> int:
    """KV blocks of a sequence once its answer is as long as it may be."""
    return -(-(seq.num_tokens + answer_left(seq)) // block_size)
