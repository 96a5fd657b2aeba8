"""Controller: how much to draft, from what was accepted and what it cost.

A drafted token costs time of the whole step, also of sequences that gain nothing by it. So the gain
of a draft is weighed against the tokens that all sequences would get in that time without it:

    value = expected accepted tokens - rate * (added seconds of the step + seconds of drafting)

The rate is the tokens per second of the best step found so far (Dinkelbach's method for the
maximum of a ratio). No draft of positive value means no draft.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pentad.execution.speculation.base import DraftPlan, Rates, Speculator
from pentad.execution.speculation.costs import StepCosts
from pentad.execution.speculation.tree import TokenTree

RANKS = 8
"""Siblings whose acceptance is told apart."""

_START: Rates = (0.7, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15)
"""What is believed of each rank before anything was seen; hopeful, so that it is tried."""
_START_TRIALS = 4.0
_POOL_TRIALS = 8.0
"""Trials of its own after which a sequence is believed as much as all others together."""
_DECAY = 0.95
_POOL_DECAY = 0.995
_LEAST_VALUE = 0.03
"""Tokens per step that a draft must be worth: below, noise decides."""
_FIRST_PROBE, _LAST_PROBE = 16, 256
"""Rounds without drafts before one is tried again; doubled each time it was in vain."""
_PLAIN_EVERY = 128
"""Rounds with drafts before one without, so that the plain step's time does not grow old."""
_ROUNDS = 2
_LOOK_EVERY = 8
"""Rounds after which a sequence without drafts is weighed again, since the company that it has changes."""


class Acceptance:
    """How often a child was accepted when those tried before it were not, by rank; old trials fade."""

    __slots__ = ("_decay", "hits", "trials")

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.trials = [0.0] * RANKS
        self.hits = [0.0] * RANKS

    def note(self, children: int, accepted: int | None) -> None:
        """A node with so many children was reached, and the child of that rank, or none, was accepted."""
        tried = children if accepted is None else accepted + 1
        for rank in range(min(tried, RANKS)):
            self.trials[rank] = self.trials[rank] * self._decay + 1
            self.hits[rank] = self.hits[rank] * self._decay + (rank == accepted)

    def blended(self, others: Sequence[float], weight: float) -> list[float]:
        """The chance of each rank, with so many trials as `others` had added."""
        return [
            (hits + weight * other) / (trials + weight)
            for hits, trials, other in zip(self.hits, self.trials, others, strict=True)
        ]


@dataclass(slots=True)
class Standing:
    """What the controller keeps of one sequence."""

    acceptance: Acceptance = field(default_factory=lambda: Acceptance(_DECAY))
    on: bool = True
    """Whether drafts pay, as far as is known."""
    recorded: bool | None = None
    """What the sequence's records say about it."""
    idle_rounds: int = 0
    probe_after: int = _FIRST_PROBE

    @property
    def asleep(self) -> bool:
        """Whether this round need not be thought about."""
        rounds = self.idle_rounds + 1
        return not self.on and rounds < self.probe_after and rounds % _LOOK_EVERY != 0


@dataclass(frozen=True, slots=True)
class Room:
    """What of a draft a sequence could use."""

    tokens: int
    """Slots that it may still fill."""
    depth: int
    """Tokens that it may still generate, but for the last: that one is never drafted."""


class Controller:
    """Chooses a plan per sequence and round.

    Args:
        speculator: offers the plans.
        costs: of the target's steps.
        most_tokens: drafted tokens per sequence and step.
        adaptive: False always takes the largest plan.
    """

    def __init__(
        self, speculator: Speculator, costs: StepCosts, *, most_tokens: int, adaptive: bool = True
    ) -> None:
        self._speculator = speculator
        self._costs = costs
        self._most_tokens = most_tokens
        self._adaptive = adaptive
        self._pool = Acceptance(_POOL_DECAY)
        self._since_plain = 0
        self._levels: deque[float] = deque(maxlen=9)
        self.level_seconds = 0.0
        """What one further token of depth costs in drafting."""

    def rates(self, standing: Standing) -> Rates:
        """What is believed of the sequence's drafts: its own outcomes, and all others while these are few."""
        pool = self._pool.blended(_START, _START_TRIALS)
        rates: list[float] = []
        left = 1.0
        for chance in standing.acceptance.blended(pool, _POOL_TRIALS):
            rates.append(left * chance)
            left -= rates[-1]
        return tuple(rates)

    def spent(self, depth: int, seconds: float) -> None:
        """Takes the time of one call that drafted so many tokens one behind the other."""
        self._levels.append(seconds / depth)
        self.level_seconds = statistics.median(self._levels)

    def note(self, standing: Standing, tree: TokenTree, path: Sequence[int]) -> None:
        """Takes the outcome of a verified tree."""
        accepted = set(path)
        for node in (-1, *path):
            children = tree.children[node + 1]
            if children:
                rank = next((i for i, child in enumerate(children) if child in accepted), None)
                standing.acceptance.note(len(children), rank)
                self._pool.note(len(children), rank)
        if not standing.on and not tree.children[(path[-1] if path else -1) + 1]:
            standing.idle_rounds = standing.probe_after  # all of a probe was accepted: ask again at once

    def choose(
        self, standings: Sequence[Standing], rooms: Sequence[Room], rows: int, spare_tokens: int
    ) -> list[DraftPlan | None]:
        """A plan or None for each of the sequences that would decode in the step.

        Args:
            standings: theirs.
            rooms: what each has room for.
            rows: tokens of the step without drafts, its prompt chunks left out.
            spare_tokens: what the step's token limit leaves for drafts.
        """
        if not self._adaptive:
            return self._largest(standings, rooms, spare_tokens)
        asleep = [standing.asleep for standing in standings]
        if all(asleep):
            for standing in standings:
                standing.idle_rounds += 1
            return [None] * len(standings)
        if not self._costs.knows(rows) or self._since_plain >= _PLAIN_EVERY:
            self._since_plain = 0
            return [None] * len(standings)
        reach = self._costs.reach - rows
        offers = [
            () if asleep[i] else _within(reach, self._offers(standings[i], rooms[i], spare_tokens))
            for i in range(len(standings))
        ]
        plain_s = self._costs.seconds(rows)
        rate = rows / plain_s if plain_s > 0 else 0.0
        chosen: list[DraftPlan | None] = []
        for _ in range(_ROUNDS):
            chosen, rate = self._best(offers, rows, spare_tokens, rate)
        for i, standing in enumerate(standings):
            chosen[i] = self._settle(standing, chosen[i], offers[i])
        self._since_plain += any(chosen)
        return chosen

    def _offers(self, standing: Standing, room: Room, spare_tokens: int) -> Sequence[DraftPlan]:
        most = min(room.tokens, self._most_tokens, spare_tokens)
        if most < 1 or room.depth < 1:
            return ()
        plans = self._speculator.options(self.rates(standing), most)
        return plans if room.depth >= most else [plan for plan in plans if plan.depth <= room.depth]

    def _largest(
        self, standings: Sequence[Standing], rooms: Sequence[Room], spare_tokens: int
    ) -> list[DraftPlan | None]:
        chosen: list[DraftPlan | None] = []
        for standing, room in zip(standings, rooms, strict=True):
            offers = self._offers(standing, room, spare_tokens)
            plan = max(offers, key=lambda offer: (offer.tokens, offer.gain), default=None)
            spare_tokens -= plan.tokens if plan else 0
            chosen.append(plan)
        return chosen

    def _best(
        self, offers: Sequence[Sequence[DraftPlan]], rows: int, spare_tokens: int, rate: float
    ) -> tuple[list[DraftPlan | None], float]:
        """The plans of highest value at this rate, and the rate of the step that they make."""
        seconds = self._costs.seconds
        chosen: list[DraftPlan | None] = []
        added = depth = 0
        gained = 0.0
        now_s = seconds(rows)
        for plans in offers:
            best, best_value = None, _LEAST_VALUE
            for plan in plans:
                if added + plan.tokens > spare_tokens:
                    continue
                added_s = seconds(rows + added + plan.tokens) - now_s
                added_s += self.level_seconds * max(0, plan.depth - depth)
                if (value := plan.gain - rate * added_s) > best_value:
                    best, best_value = plan, value
            chosen.append(best)
            if best is not None:
                added += best.tokens
                gained += best.gain
                depth = max(depth, best.depth)
                now_s = seconds(rows + added)
        whole_s = now_s + self.level_seconds * depth
        return chosen, max(rate, (rows + gained) / whole_s if whole_s > 0 else 0.0)

    @staticmethod
    def _settle(standing: Standing, plan: DraftPlan | None, offers: Sequence[DraftPlan]) -> DraftPlan | None:
        """The plan, or now and then a small one where none pays, to find out whether that has changed."""
        if plan is not None:
            standing.on, standing.idle_rounds, standing.probe_after = True, 0, _FIRST_PROBE
            return plan
        standing.on = standing.on and not offers
        standing.idle_rounds += 1
        if standing.idle_rounds < standing.probe_after or not offers:
            return None
        standing.idle_rounds = 0
        standing.probe_after = min(2 * standing.probe_after, _LAST_PROBE)
        return min(offers, key=lambda offer: (abs(offer.tokens - 2), offer.depth))


def _within(reach: int, plans: Sequence[DraftPlan]) -> Sequence[DraftPlan]:
    """The plans whose cost can be guessed; the smallest, if none can: otherwise none ever could."""
    dared = [plan for plan in plans if plan.tokens <= reach]
    return dared or sorted(plans, key=lambda plan: plan.tokens)[:1]
