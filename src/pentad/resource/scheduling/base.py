"""What every batch scheduler needs: block arithmetic, and a draft that keeps the books of one step.

Blocks are counted so that a plan can always be carried out:

    running sequence     [ num_blocks held ][ growth ]         growth comes out of the free blocks
    waiting sequence     [ cached | new    ]                   all of it does: an unused cached block
                                                               counts as free until it is taken
    preempted sequence   [ private | shared with live ones ]   only the private ones surely come back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from pentad.execution.scheduling import Refusal, SchedulerInput, SequenceView, StepPlan
from pentad.types import Decision

if TYPE_CHECKING:
    from pentad.resource.scheduling.tenant_shares import TenantShares


Urgency = tuple[float, ...]
"""Sort key of sequences; smaller comes first."""


def todo_tokens(seq: SequenceView) -> int:
    """Tokens that the sequence has still to compute; 1 for a decoding one.

    A waiting sequence starts behind what the prefix cache supplies.
    """
    return seq.num_tokens - (seq.num_computed or seq.num_cached)


def growth_blocks(seq: SequenceView, tokens: int, block_size: int) -> int:
    """Free blocks that computing `tokens` more tokens of the sequence takes."""
    end = (seq.num_slots or seq.num_cached) + tokens
    return max(0, -(-end // block_size) - seq.num_blocks)


class StepBuilder:
    """One step while it is planned.

    Args:
        policy: registered name of the scheduler, for the decision records.
        state: what the engine showed.
        token_budget: tokens that the step may compute.
        order: the running sequences, most urgent first; room is made from its end.
        shares: of the step, between tenants; None where one alone has work.
        urgency: sort key of the sequences of one tenant; None: arrival.
    """

    __slots__ = (
        "_decisions",
        "_policy",
        "alive",
        "block_size",
        "budget",
        "decodes",
        "drafts",
        "free_blocks",
        "max_sequences",
        "now_s",
        "preempted",
        "prefills",
        "reserved_blocks",
        "shares",
        "tokens",
        "urgency",
    )

    def __init__(
        self,
        policy: str,
        state: SchedulerInput,
        token_budget: int,
        order: Iterable[SequenceView],
        shares: TenantShares | None = None,
        urgency: Callable[[SequenceView], Urgency] | None = None,
    ) -> None:
        self._policy = policy
        self.shares = shares
        self.urgency = urgency or (lambda seq: (seq.arrived_s,))
        self._decisions: list[Decision] = []
        self.now_s = state.now_s
        self.block_size = state.block_size
        self.max_sequences = state.limits.max_sequences
        self.budget = self.tokens = token_budget
        self.free_blocks = state.free_blocks
        self.reserved_blocks = 0
        """Blocks that admitted prompts need to their end and do not hold yet."""
        self.alive = list(order)
        self.decodes: dict[str, tuple[SequenceView, int]] = {}
        """Sequence and the blocks that its one token takes."""
        self.drafts: dict[str, int] = {}
        """Drafted tokens that decoding sequences have verified beside their one."""
        self.prefills: list[tuple[SequenceView, int]] = []
        self.preempted: dict[str, SequenceView] = {}

    def reserve(self, prefills: Iterable[SequenceView]) -> None:
        """Keeps the blocks that running prompts need to their end away from new admissions."""
        for seq in prefills:
            self.reserved_blocks += growth_blocks(seq, todo_tokens(seq), self.block_size)

    def preempt(self, victim: SequenceView, constraint: str, beneficiary: SequenceView) -> None:
        """Takes everything from `victim`, also what this draft had given it."""
        self.alive = [seq for seq in self.alive if seq.id != victim.id]
        self.preempted[victim.id] = victim
        if self.shares is not None:
            self.shares.held[victim.tenant] -= 1
        self.free_blocks += victim.num_private_blocks
        todo = todo_tokens(victim)
        if victim.id in self.decodes:
            self.free_blocks += self.decodes.pop(victim.id)[1]
            self._spend(victim, -1)
        elif todo > 1:
            self.reserved_blocks -= growth_blocks(victim, todo, self.block_size)
        self.note("preempt", victim.id, constraint, (beneficiary, victim))

    def cut(self, tokens: int, tightest: SequenceView | None) -> None:
        """Leaves so many tokens of the step, for the sake of `tightest` and its wish between tokens."""
        if tightest is not None:
            self.tokens = tokens
            self.note("chunk_tokens", "cut", "inter_token_s", (tightest,))

    def note(
        self,
        subject: str,
        chosen: str,
        constraint: str,
        candidates: Iterable[SequenceView] = (),
        score: Callable[[SequenceView], float] = attrgetter("priority"),
    ) -> None:
        """Records a deviation from the ordinary; candidates are scored by their priority, or as given."""
        self._decisions.append(
            Decision(
                layer="resource",
                policy=self._policy,
                subject=subject,
                chosen=chosen,
                candidates=tuple((seq.id, float(score(seq))) for seq in candidates),
                constraint=constraint,
                at_s=self.now_s,
            )
        )

    def add_decodes(self, decodes: Iterable[SequenceView], most: int) -> None:
        """Gives one token to at most `most` decoding sequences, given most urgent first.

        Where blocks run out, the least urgent sequence alive is preempted, if need be the one
        that asked: what it holds lets the others go on.
        """
        for seq in decodes:
            if len(self.decodes) >= most:
                return
            if seq.id in self.preempted or self.room(seq, 1) < 1:
                continue
            need = growth_blocks(seq, 1, self.block_size)
            while need > self.free_blocks and seq.id not in self.preempted:
                self.preempt(self.alive[-1], "free_blocks", seq)
            if seq.id not in self.preempted:
                self.decodes[seq.id] = (seq, need)
                self.free_blocks -= need
                self._spend(seq, 1)

    def key(self, seq: SequenceView) -> Urgency:
        """Sort key of the step's order among all sequences, smaller comes first."""
        return self.urgency(seq) if self.shares is None else self.shares.key(seq)

    def room(self, seq: SequenceView, most: int) -> int:
        """Tokens that the step has for the sequence, at most `most`."""
        most = min(most, self.tokens)
        return most if self.shares is None else min(most, self.shares.left(seq.tenant))

    def peers(self, seq: SequenceView) -> str:
        """Whom the sequence's priority counts among: its tenant's, where there are several, else all."""
        return "" if self.shares is None else seq.tenant

    def continue_prefill(self, seq: SequenceView, most: int) -> int:
        """Gives an admitted prompt its next chunk, cut to `most` tokens and to the free blocks."""
        if seq.id in self.preempted:
            return 0
        held_slots = (seq.num_blocks + self.free_blocks) * self.block_size
        tokens = min(todo_tokens(seq), self.room(seq, most), held_slots - seq.num_slots)
        if tokens <= 0:
            return 0
        need = growth_blocks(seq, tokens, self.block_size)
        self.reserved_blocks -= need
        self._give(seq, tokens, need)
        return tokens

    def break_deadlock(self) -> None:
        """Where prompts in progress hold every block, the last gives way until the first can go on."""
        while not self.decodes and not self.prefills and len(self.alive) > 1:
            self.preempt(self.alive[-1], "free_blocks", self.alive[0])
            self.continue_prefill(self.alive[0], self.tokens)

    def fits(self, seq: SequenceView, headroom_blocks: int) -> bool:
        """Whether a waiting prompt could be computed to its end without taking what others need."""
        whole = -(-seq.num_tokens // self.block_size)
        return whole + headroom_blocks <= self.free_blocks - self.reserved_blocks

    def admit(self, seq: SequenceView, most: int) -> int:
        """Starts a waiting prompt with a chunk of at most `most` tokens."""
        tokens = min(todo_tokens(seq), self.room(seq, most))
        need = growth_blocks(seq, tokens, self.block_size)
        self.reserved_blocks += -(-seq.num_tokens // self.block_size) - need
        self._give(seq, tokens, need)
        self.alive.append(seq)
        if self.shares is not None:
            self.shares.held[seq.tenant] += 1
        return tokens

    def add_drafts(self) -> None:
        """Gives decoding sequences the room that is left for their drafts; nobody makes room for these.

        They come last: where prompts fill the step, its time grows with every token, and none is
        won by guessing some.
        """
        for seq, need in self.decodes.values():
            if not seq.num_draft:
                continue
            room = seq.num_blocks + need + max(0, self.free_blocks - self.reserved_blocks)
            count = min(self.room(seq, seq.num_draft), room * self.block_size - seq.num_slots - 1)
            if count > 0:
                self.drafts[seq.id] = count
                self._spend(seq, count)
                self.free_blocks -= growth_blocks(seq, 1 + count, self.block_size) - need

    def _give(self, seq: SequenceView, tokens: int, need: int) -> None:
        self.prefills.append((seq, tokens))
        self.free_blocks -= need
        self._spend(seq, tokens)

    def _spend(self, seq: SequenceView, tokens: int) -> None:
        self.tokens -= tokens
        if self.shares is not None:
            self.shares.take(seq.tenant, tokens)

    def plan(self, *, refuse: tuple[Refusal, ...] = (), keep: object = None) -> StepPlan:
        """The finished plan: decodes first, then prompts in the order they were given room."""
        drafts = self.drafts
        return StepPlan(
            work=(*((seq, 1 + drafts.get(seq.id, 0)) for seq, _ in self.decodes.values()), *self.prefills),
            preempt=tuple(self.preempted.values()),
            decisions=tuple(self._decisions),
            refuse=refuse,
            keep=keep,
        )
