"""Classes of service: the highest one here has its steps nearly to itself, and nobody waits past a cap."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pentad.execution.scheduling import SchedulerInput, SequenceView, StepPlan
from pentad.ranges import in_range
from pentad.resource.scheduling.base import StepBuilder
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.scheduling.short_requests import chunk_tokens
from pentad.resource.scheduling.step_estimate import estimate_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes(Sarathi):
    """Steps as `sarathi`, in which lower classes take only what the highest one hardly notices.

    A request's class is its priority number; a lower number is a higher class. While a class is in a step,
    those below it get only as many tokens, of answers and of prompts, as make the step take `slowdown` times
    what it takes for the class alone, by the engine's latest steps; while it computes a prompt, no other
    prompt is computed. Within a class the order is by deadline slack, then arrival. Ageing: who has waited
    `aging_s` per class that it is below another counts as of that class, so nobody waits much longer than
    that for its turn.
    Exactness: lossless. Cost: a fit to the latest steps now and then.

    Source: head-of-the-line priorities with ageing (Kleinrock, Queueing Systems II, 1976, chapter 3). Our
    difference: what is shared out is the time of a step, not a server.
    """

    slowdown: float = 1.1
    """How many times its time alone a step may take for the highest class in it; above 1."""

    def __post_init__(self) -> None:
        Sarathi.__post_init__(self)
        in_range("slowdown", self.slowdown, above=1, most=1000)

    @property
    def name(self) -> str:
        return "classes"

    def plan(self, state: SchedulerInput) -> StepPlan:
        estimate = estimate_of(state)
        seen = dataclasses.replace(state, kept=estimate)
        return dataclasses.replace(Sarathi.plan(self, seen), keep=estimate)

    def _plain(self, state: SchedulerInput, budget: int) -> StepPlan | None:
        several = len({seq.priority for seq in state.running}) > 1
        return None if several else Sarathi._plain(self, state, budget)

    def _standing(self, seq: SequenceView, now_s: float) -> float:
        """Its class, higher by one for every `aging_s` that it is old."""
        return seq.priority - (0 if self.aging_s is None else (now_s - seq.arrived_s) // self.aging_s)

    def _most_decodes(
        self,
        draft: StepBuilder,
        decodes: list[SequenceView],
        started: list[SequenceView],
        state: SchedulerInput,
    ) -> int:
        most = Sarathi._most_decodes(self, draft, decodes, started, state)
        highest = self._highest((*decodes, *started, *state.waiting), state.now_s)
        own = [seq for seq in decodes if self._standing(seq, state.now_s) <= highest]
        if not own or len(own) == len(decodes):
            return most
        return min(most, max(len(own), self._company(state, own, decodes)))

    def _company(self, state: SchedulerInput, own: list[SequenceView], decodes: list[SequenceView]) -> int:
        """How many of the decoding sequences, own ones first, a step bears that should be short for these."""
        estimate = estimate_of(state)
        if estimate is None:
            return len(decodes)
        slots = sum(seq.num_tokens for seq in own)
        most_s = self.slowdown * estimate.seconds(len(own), 0, slots, 0)
        count = len(own)
        names = {seq.id for seq in own}
        for seq in decodes:
            if seq.id not in names:
                slots += seq.num_tokens
                if estimate.seconds(count + 1, 0, slots, 0) > most_s:
                    break
                count += 1
        return count

    def _highest(self, sequences: tuple[SequenceView, ...], now_s: float) -> float:
        return min((self._standing(seq, now_s) for seq in sequences), default=0)

    def _add_prompts(self, draft: StepBuilder, started: list[SequenceView], state: SchedulerInput) -> None:
        """Prompts of the highest class as `sarathi` gives them room; of the others, short chunks behind."""
        now_s = state.now_s
        decoding = [seq for seq, _ in draft.decodes.values()]
        highest = self._highest((*decoding, *started, *state.waiting), now_s)
        own = [seq for seq in started if self._standing(seq, now_s) <= highest]
        waiting = [seq for seq in state.waiting if self._standing(seq, now_s) <= highest]
        Sarathi._add_prompts(self, draft, own, dataclasses.replace(state, waiting=waiting))
        rest = [seq for seq in started if self._standing(seq, now_s) > highest]
        others = [seq for seq in state.waiting if self._standing(seq, now_s) > highest]
        given = {seq.id for seq, _ in draft.prefills}
        if not all(seq.id in given for seq in waiting):
            others = []  # else they would take the blocks that it waits for
        if rest or others:
            draft.tokens = min(draft.tokens, self._spare_tokens(draft, state, highest))
            Sarathi._add_prompts(self, draft, rest, dataclasses.replace(state, waiting=others))

    def _spare_tokens(self, draft: StepBuilder, state: SchedulerInput, highest: float) -> int:
        """Tokens of lower classes' prompts that the step bears."""
        estimate = estimate_of(state)
        if estimate is None:
            return chunk_tokens(state.pace, draft.budget, 1 + 2 * (self.slowdown - 1))
        if draft.prefills:
            return 0
        decoding = [seq for seq, _ in draft.decodes.values()]
        own = [seq for seq in decoding if self._standing(seq, state.now_s) <= highest]
        if not own:
            return draft.tokens
        slots = sum(seq.num_tokens for seq in decoding)
        most_s = self.slowdown * estimate.seconds(len(own), 0, sum(seq.num_tokens for seq in own), 0)
        low, high = 0, draft.tokens
        while low < high:
            middle = (low + high + 1) // 2
            pairs = middle * (middle + 1) / 2
            if estimate.seconds(len(decoding), middle, slots + middle, pairs) <= most_s:
                low = middle
            else:
                high = middle - 1
        return low
