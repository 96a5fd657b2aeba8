"""Stall-free batching: all decodes, then chunks of prompts up to a token budget."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from pentad.execution.hints import TurnHints
from pentad.execution.scheduling import SchedulerInput, SequenceView, StepPlan
from pentad.resource.scheduling.base import StepBuilder, Urgency, growth_blocks, todo_tokens
from pentad.resource.scheduling.hinted_order import PATIENCE_S, lead_s, note_order, prompt_tokens
from pentad.resource.scheduling.short_requests import chunk_tokens, is_short, pauses
from pentad.resource.scheduling.tenant_shares import TenantShares


@dataclass(frozen=True, slots=True, kw_only=True)
class Sarathi:
    """Every decoding sequence advances each step; prompts fill what the token budget leaves.

    Drafted tokens get what is left behind the prompts. A short request does not wait for long prompts
    that came before it: it takes up to half of a step first, and their chunks are cut and pause as it
    needs (short_requests.py).

    Order among prompts, and the order in which sequences lose their blocks, is by urgency: lower
    priority number first, then arrival; who has a deadline or little of its run before it counts as
    having arrived earlier (hinted_order.py). A waiting request of a lower priority number takes the
    slot or the blocks of the least urgent running one when none are free. Cost: linear in the
    running sequences, plus a heap over the waiting ones while there is room. Exactness: lossless.

    Source: Sarathi-Serve (Agrawal et al., OSDI'24, algorithm 3). Our difference: priorities,
    preemption and ageing; shares of tenants (tenant_shares.py); admission needs blocks for the whole
    prompt; the share of short requests; deadlines, remaining steps and wishes between tokens.
    """

    token_budget: int | None = None
    """Tokens per step; None means the engine's `max_batch_tokens`, which also bounds it."""
    aging_s: float | None = 300.0
    """A request is overtaken only by requests that arrive within this time per priority level
    after it, so waiting is bounded; None means strict priorities, which may starve."""
    headroom_blocks: int = 1
    """Blocks per running sequence that an ordinary admission leaves free for their growth."""
    short_slowdown: float | None = 3.0
    """How many times its time alone a short request takes behind long prompts, at most and about; None
    means that prompts fill every step in their order."""
    tenant_slowdown: float | None = 1.75
    """How many times its time alone a step takes for a tenant when one other has work as well, at most and
    about; each further one adds as much. None means that tenants are not told apart."""

    patience_s: float | None = PATIENCE_S
    """Within how long requests that say nothing want their turn: those with less slack come before them.
    None means that deadlines, remaining steps and wishes between tokens change nothing."""

    _by_arrival: ClassVar[bool] = True
    """Whether sequences of one priority and without hints stand in the order of their arrival."""

    def __post_init__(self) -> None:
        if self.patience_s is not None and self.patience_s <= 0:
            raise ValueError(f"patience_s is {self.patience_s}, must be above 0, or None to ignore hints")
        if self.token_budget is not None and self.token_budget < 1:
            raise ValueError(f"token_budget is {self.token_budget}, must be at least 1")
        if self.aging_s is not None and self.aging_s <= 0:
            raise ValueError(f"aging_s is {self.aging_s}, must be above 0, or None for strict priorities")
        if self.headroom_blocks < 0:
            raise ValueError(f"headroom_blocks is {self.headroom_blocks}, must be at least 0")
        for name in ("short_slowdown", "tenant_slowdown"):
            slowdown = getattr(self, name)
            if slowdown is not None and not 1 < slowdown <= 1000:
                raise ValueError(f"{name} is {slowdown}, must be above 1, at most 1000, or None")

    @property
    def name(self) -> str:
        return "sarathi"

    def plan(self, state: SchedulerInput) -> StepPlan:
        budget = self._budget(state)
        if not state.served and self._by_arrival and self._plans_as_sarathi:
            ordinary = self._ordinary(state, budget)
            if ordinary is not None:
                return ordinary
        urgency = self._order(state)
        if state.served and self.tenant_slowdown is not None:
            shares = TenantShares(state, urgency, budget, self.tenant_slowdown)
            plan = self._plan(state, budget, urgency, shares)
            if plan.work:
                return plan  # else the work of those whose turn it is waits for blocks of the others
        elif not state.waiting:
            plain = self._plain(state, budget)
            if plain is not None:
                return plain
        return self._plan(state, budget, urgency, None)

    def steady(self, state: SchedulerInput) -> bool:
        """While one tenant has all sequences, and nobody waits who could have a place.

        A strategy that plans its steps in another way says for itself when that is so.
        """
        if not self._plans_as_sarathi or state.served:
            return False
        budget = state.limits.max_batch_tokens
        if self.token_budget is not None:
            budget = min(budget, self.token_budget)
        if len(state.running) > budget:
            return False
        if not state.waiting:
            return True
        if type(self)._rank is not Sarathi._rank:
            return False
        least = max(seq.priority for seq in state.running)
        placeless = all(seq.priority >= least for seq in state.waiting)
        wishes = any(hints is not None and hints.inter_token_s is not None for hints in _hints(state))
        return len(state.running) >= state.limits.max_sequences and placeless and not wishes

    @property
    def _plans_as_sarathi(self) -> bool:
        own = type(self)
        alike = _ALIKE.get(own)
        if alike is None:
            alike = all(getattr(own, name) is getattr(Sarathi, name) for name in _PLANNING)
            _ALIKE[own] = alike
        return alike

    def _plan(
        self,
        state: SchedulerInput,
        budget: int,
        urgency: Callable[[SequenceView], Urgency],
        shares: TenantShares | None,
    ) -> StepPlan:
        """The plan of a step that is not the ordinary one."""
        order = sorted(state.running, key=urgency if shares is None else shares.key)
        draft = StepBuilder(self.name, state, budget, order, shares, urgency)
        decodes: list[SequenceView] = []
        started: list[SequenceView] = []
        for seq in order:
            (decodes if todo_tokens(seq) == 1 else started).append(seq)
        draft.reserve(started)
        draft.add_decodes(decodes, self._most_decodes(draft, decodes, started, state))
        if self.patience_s is not None:
            draft.cut(*prompt_tokens((seq for seq, _ in draft.decodes.values()), state.pace, draft.tokens))
        self._add_prompts(draft, started, state)
        draft.break_deadlock()
        if self.patience_s is not None:
            note_order(draft, state.waiting, self.patience_s)
        draft.add_drafts()
        return draft.plan()

    def _plain(self, state: SchedulerInput, budget: int) -> StepPlan | None:
        """The plan of a step in which everyone decodes and nobody waits; None where it is not one."""
        return _only_decodes(state, budget)

    def _ordinary(self, state: SchedulerInput, budget: int) -> StepPlan | None:
        """The plan of a step in which all are alike, everyone who decodes can, and one prompt at most could
        be computed: what `_plan` would find, in a fraction of its time. None where it is not one."""
        running, waiting, size = state.running, state.waiting, state.block_size
        if not running and not waiting:
            return None
        free = state.free_blocks
        decodes: list[SequenceView] = []
        prompt: SequenceView | None = None
        priority = (running or waiting)[0].priority
        latest_s, sorted_already = -math.inf, True
        for seq in running:
            if seq.priority != priority or seq.turn_hints is not None or seq.num_draft:
                return None
            computed = seq.num_computed
            if seq.num_tokens - (computed or seq.num_cached) == 1:
                if computed >= seq.num_blocks * size:
                    free -= growth_blocks(seq, 1, size)
                decodes.append(seq)
                arrived_s = seq.arrived_s
                if arrived_s < latest_s:
                    sorted_already = False
                latest_s = arrived_s
            elif prompt is None:
                prompt = seq
            else:
                return None
        if free < 0 or len(decodes) >= budget:
            return None
        if waiting:
            if len(running) >= state.limits.max_sequences:
                if type(self)._rank is not Sarathi._rank or min(seq.priority for seq in waiting) < priority:
                    return None
            elif prompt is not None or len(waiting) > 1 or waiting[0].priority != priority:
                return None
            else:
                prompt = waiting[0]
        if not sorted_already:
            decodes.sort(key=attrgetter("arrived_s"))
        work: list[tuple[SequenceView, int]] = [(seq, 1) for seq in decodes]
        if prompt is not None:
            tokens = self._prompt_tokens(prompt, decodes, state, budget, free)
            if tokens:
                work.append((prompt, tokens))
            elif tokens is None or not work:
                return None
        return StepPlan(work=tuple(work))

    def _prompt_tokens(
        self,
        prompt: SequenceView,
        decodes: list[SequenceView],
        state: SchedulerInput,
        budget: int,
        free_blocks: int,
    ) -> int | None:
        """Tokens of the only prompt in an ordinary step; None where that takes more thought."""
        if prompt.turn_hints is not None:
            return None
        most = budget - len(decodes)
        if self.short_slowdown is not None and not is_short(prompt):
            most = min(most, chunk_tokens(state.pace, budget, self.short_slowdown))
            if any(map(is_short, decodes)) and pauses((prompt,), state.now_s, self.short_slowdown):
                return 0
        todo = todo_tokens(prompt)
        if state.waiting and len(state.running) < state.limits.max_sequences:  # it would be admitted
            headroom = self.headroom_blocks * len(state.running)
            fits = -(-prompt.num_tokens // state.block_size) + headroom <= free_blocks
            return min(todo, most) if fits else None
        held_slots = (prompt.num_blocks + free_blocks) * state.block_size
        tokens = min(todo, most, held_slots - prompt.num_slots)
        return tokens if tokens > 0 else None

    def _budget(self, state: SchedulerInput) -> int:
        """Tokens of a step."""
        most = state.limits.max_batch_tokens
        return most if self.token_budget is None else min(most, self.token_budget)

    def _order(self, state: SchedulerInput) -> Callable[[SequenceView], Urgency]:  # noqa: ARG002
        """What a step's sequences are sorted by."""
        return self._urgency

    def _urgency(self, seq: SequenceView) -> Urgency:
        """Sort key, smaller is more urgent. It does not change with time, so no order ever flips."""
        wanted_s = seq.arrived_s
        if self.patience_s is not None and seq.turn_hints is not None:
            wanted_s -= lead_s(seq.turn_hints, self.patience_s)
        if self.aging_s is None:
            return (seq.priority, wanted_s)
        return (wanted_s + seq.priority * self.aging_s, seq.arrived_s)

    def _most_decodes(
        self,
        draft: StepBuilder,
        decodes: list[SequenceView],
        started: list[SequenceView],
        state: SchedulerInput,
    ) -> int:
        """How many decodes may run: all, but one token is kept for a prompt more urgent than a decode."""
        budget = draft.budget
        if len(decodes) < budget or not decodes:
            return budget
        last = draft.key(decodes[-1])
        if any(draft.key(seq) < last for seq in (*started, *state.waiting)):
            return max(1, budget - 1)
        return budget

    def _add_prompts(self, draft: StepBuilder, started: list[SequenceView], state: SchedulerInput) -> None:
        """Chunks for prompts in progress and admissions, in one order of urgency, but for the short."""
        prompts = list(heapq.merge(started, self._admissible(draft, state), key=draft.key))
        waiting = {seq.id for seq in prompts} - {seq.id for seq in started}
        first_long = len(prompts)
        if self.short_slowdown is not None:
            first_long = next((i for i, seq in enumerate(prompts) if not is_short(seq)), first_long)
        fits = self._add(draft, prompts[:first_long], waiting, draft.budget)
        rest = prompts[first_long:]
        if not rest:
            return
        assert self.short_slowdown is not None
        if fits:
            given = self._overtake(draft, rest, waiting)
            rest = [seq for seq in rest if seq.id not in given]
        else:  # nobody overtakes the first that does not fit; prompts in progress still go on
            rest = [seq for seq in rest if seq.id not in waiting]
        tokens = chunk_tokens(state.pace, draft.budget, self.short_slowdown)
        beside = (*(seq for seq, _ in draft.decodes.values()), *(seq for seq, _ in draft.prefills))
        if any(map(is_short, beside)):
            longs = (seq for seq in prompts[first_long:] if not is_short(seq))
            if pauses(longs, state.now_s, self.short_slowdown):
                tokens = 0
        self._add(draft, rest, waiting, tokens)

    def _add(
        self, draft: StepBuilder, prompts: list[SequenceView], waiting: set[str], long_tokens: int
    ) -> bool:
        """Goes through prompts in their order; whether all had room.

        Args:
            waiting: the ids of those that would be admitted.
            long_tokens: what those that are not short may take together.
        """
        fits = True
        for seq in prompts:
            most = draft.budget if is_short(seq) else long_tokens
            given = 0
            if draft.room(seq, most) <= 0:
                # Who has had its share holds up nobody but its own.
                fits = fits and (seq.id not in waiting or draft.room(seq, most) < min(most, draft.tokens))
            elif seq.id not in waiting:
                given = draft.continue_prefill(seq, most)
            elif fits := fits and self._has_room(draft, seq):
                given = draft.admit(seq, most)
            if not is_short(seq):
                long_tokens -= given
        return fits

    def _overtake(self, draft: StepBuilder, prompts: list[SequenceView], waiting: set[str]) -> set[str]:
        """Gives short prompts up to half of the step before long ones that came first; the ids of the short.

        The long lose some time to them, but neither blocks nor a place in the batch: what those that wait
        will need is kept, and who has a lower priority overtakes nobody.
        """
        given: set[str] = set()
        tokens = (draft.tokens + 1) // 2
        blocks = places = 0
        least: dict[str, int] = {}
        for seq in prompts:
            if not is_short(seq):
                peers = draft.peers(seq)
                least[peers] = min(seq.priority, least.get(peers, seq.priority))
        for seq in prompts:
            if not is_short(seq):
                if seq.id in waiting:
                    places += 1
                    blocks += -(-seq.num_tokens // draft.block_size)
                continue
            if draft.room(seq, tokens) <= 0 or seq.priority > least.get(draft.peers(seq), seq.priority):
                continue
            if seq.id not in waiting:
                tokens -= draft.continue_prefill(seq, tokens)
            elif len(draft.alive) + places < draft.max_sequences and draft.fits(
                seq, self.headroom_blocks * len(draft.alive) + blocks
            ):
                tokens -= draft.admit(seq, tokens)
            else:
                break
            given.add(seq.id)
        return given

    def _admissible(self, draft: StepBuilder, state: SchedulerInput) -> list[SequenceView]:
        """The waiting sequences that have any prospect of starting, most urgent first."""
        waiting = state.waiting
        if len(draft.alive) >= draft.max_sequences:
            least = max(self._rank(draft, seq) for seq in draft.alive)
            if draft.shares is not None:
                waiting = [
                    seq for seq in waiting if any(self._may_displace(draft, seq, o) for o in draft.alive)
                ]
            else:
                waiting = [seq for seq in waiting if self._rank(draft, seq) < least]
        alike = draft.shares is None and len({seq.priority for seq in waiting}) == 1
        if self._by_arrival and alike and not any(map(attrgetter("turn_hints"), waiting)):
            return sorted(waiting, key=attrgetter("arrived_s"))
        return sorted(waiting, key=draft.key)

    def _has_room(self, draft: StepBuilder, seq: SequenceView) -> bool:
        """Whether `seq` can start now, if need be in the place of less urgent running sequences."""
        slots = draft.max_sequences - len(draft.alive)
        urgent = any(self._may_displace(draft, seq, other) for other in draft.alive)
        headroom = 0 if urgent else self.headroom_blocks * len(draft.alive)
        if slots > 0 and draft.fits(seq, headroom):
            return True
        constraint = "free_blocks" if slots > 0 else "max_sequences"
        victims = self._victims(draft, seq, slots) if urgent else []
        for victim in victims:
            draft.preempt(victim, constraint, seq)
        if not victims and constraint == "free_blocks":
            draft.note("admit", seq.id, constraint)
        return bool(victims)

    def _may_displace(
        self, draft: StepBuilder, seq: SequenceView, other: SequenceView, lost: int = 0
    ) -> bool:
        if draft.shares is not None and seq.tenant != other.tenant:
            return draft.shares.may_displace(seq, other, lost)
        displaced = self._rank(draft, other) > self._rank(draft, seq)
        return displaced and draft.urgency(other) > draft.urgency(seq)

    def _rank(self, draft: StepBuilder, seq: SequenceView) -> float:  # noqa: ARG002
        """What must be lower for a waiting sequence to take the place of a running one."""
        return seq.priority

    def _victims(self, draft: StepBuilder, seq: SequenceView, slots: int) -> list[SequenceView]:
        """The fewest less urgent sequences, last first, whose places are enough; none if all are not."""
        victims: list[SequenceView] = []
        need = -(-seq.num_tokens // draft.block_size)
        room = draft.free_blocks - draft.reserved_blocks
        new = {prefill.id for prefill, _ in draft.prefills}
        lost: Counter[str] = Counter()
        for candidate in reversed(draft.alive):
            if candidate.id in new or not self._may_displace(draft, seq, candidate, lost[candidate.tenant]):
                continue
            victims.append(candidate)
            lost[candidate.tenant] += 1
            slots += 1
            room += candidate.num_private_blocks
            if candidate.id in draft.decodes:
                room += draft.decodes[candidate.id][1]
            else:
                room += growth_blocks(candidate, todo_tokens(candidate), draft.block_size)
            if slots > 0 and room >= need:
                return victims
        return []


_ALIKE: dict[type[Sarathi], bool] = {}
"""Which of its kinds plan as it does, once asked."""
_PLANNING = ("plan", "_plan", "_most_decodes", "_add_prompts", "_admissible", "_may_displace")


def _hints(state: SchedulerInput) -> Iterable[TurnHints | None]:
    return (seq.turn_hints for seq in state.running)


def _only_decodes(state: SchedulerInput, budget: int) -> StepPlan | None:
    """The plan of the ordinary step: everyone decodes and blocks suffice. None when it is not one."""
    free = state.free_blocks
    block_size = state.block_size
    drafted = 0
    for seq in state.running:
        computed = seq.num_computed
        if seq.num_tokens - computed != 1:
            return None
        drafts = seq.num_draft
        drafted += drafts
        if computed + drafts >= seq.num_blocks * block_size:
            free -= growth_blocks(seq, 1 + drafts, block_size)
    if free < 0 or len(state.running) + drafted > budget:
        return None
    if drafted:
        return StepPlan(work=tuple((seq, 1 + seq.num_draft) for seq in state.running))
    return StepPlan(work=tuple((seq, 1) for seq in state.running))
