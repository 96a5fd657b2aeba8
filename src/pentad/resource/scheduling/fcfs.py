"""First come, first served: whole prompts, in arrival order."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.resource.scheduling.base import StepBuilder, todo_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Fcfs:
    """Runs whole prompts before anything else, so every new prompt stalls all decodes.

    The baseline that token budgets are measured against. Priorities are ignored. A prompt longer
    than the step's token limit runs alone, in chunks of that limit. Cost: linear in the sequences
    shown. Exactness: lossless.

    Source: vLLM 0.x default scheduler (Kwon et al., SOSP'23, section 4.5); `prefill_first=False`
    is iteration-level batching as in Orca (Yu et al., OSDI'22). Our difference: a prompt is
    admitted when blocks for all of it are free, and one block stays free per running sequence in
    place of a fixed share of the pool.
    """

    prefill_first: bool = True
    """False runs all decodes first and adds whole prompts as far as the token limit allows."""

    @property
    def name(self) -> str:
        return "fcfs"

    def plan(self, state: SchedulerInput) -> StepPlan:
        order = sorted(state.running, key=lambda seq: seq.arrived_s)
        draft = StepBuilder(self.name, state, state.limits.max_batch_tokens, order)
        decodes = [seq for seq in order if todo_tokens(seq) == 1]
        started = [seq for seq in order if todo_tokens(seq) > 1]
        draft.reserve(started)
        if not self.prefill_first:
            draft.add_decodes(decodes, draft.tokens)
        for seq in started:
            draft.continue_prefill(seq, draft.tokens)
        self._admit(draft, state)
        if self.prefill_first and not draft.prefills:
            draft.add_decodes(decodes, draft.tokens)
        draft.break_deadlock()
        draft.add_drafts()
        return draft.plan()

    def steady(self, state: SchedulerInput) -> bool:
        """While nobody waits, or all places are taken by sequences that decode."""
        return not state.waiting or len(state.running) >= state.limits.max_sequences

    def _admit(self, draft: StepBuilder, state: SchedulerInput) -> None:
        """Starts whole prompts in arrival order until tokens, slots or blocks run out."""
        for seq in state.waiting:
            todo = todo_tokens(seq)
            if draft.tokens <= 0 or len(draft.alive) >= draft.max_sequences:
                return
            if todo > draft.tokens and (todo <= state.limits.max_batch_tokens or draft.prefills):
                return
            if not draft.fits(seq, headroom_blocks=len(draft.alive)):
                draft.note("admit", seq.id, "free_blocks")
                return
            draft.admit(seq, draft.tokens)
