"""Shares of a step between tenants, so that one with many sequences does not slow one with few.

    alone       [ weights ][ own ]
    in company  [ weights ][ own ][ the other tenant's share ]     at most `slowdown` times as long

Reading the weights serves everybody, so its time may be spent once more on the others' tokens: a share
is as much as takes the time of a step of the tenant that has least to do, not only as many tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from pentad.execution.pace import Pace
from pentad.execution.scheduling import SchedulerInput, SequenceView
from pentad.resource.scheduling.base import Urgency, todo_tokens


class TenantShares:
    """Whose turn it is in one step, and what each tenant may still take of it.

    Tenants alternate: the first sequence of each comes before the second of any, and of equals the one
    whose tenant has been served least. So priorities order a tenant's own sequences only. Cost: two
    sorts over all sequences; made only while several tenants have some.

    Args:
        state: what the engine showed.
        urgency: orders the sequences of a tenant.
        budget: tokens that the step may compute.
        slowdown: how many times as long as alone a step may take for one other tenant; above 1.
    """

    __slots__ = ("_keys", "_left", "held")

    def __init__(
        self, state: SchedulerInput, urgency: Callable[[SequenceView], Urgency], budget: int, slowdown: float
    ) -> None:
        self.held = Counter(seq.tenant for seq in state.running)
        """Running sequences of each tenant."""
        self._keys: dict[str, Urgency] = {}
        running = sorted(state.running, key=urgency)
        everyone = sorted((*state.running, *state.waiting), key=urgency)
        for group in (running, everyone):
            ranks: Counter[str] = Counter()
            for seq in group:
                own = urgency(seq)
                key = (ranks[seq.tenant], state.served.get(seq.tenant, 0), *own)
                self._keys.setdefault(seq.id, key)
                ranks[seq.tenant] += 1
        demand: Counter[str] = Counter()
        for seq in (*state.running, *state.waiting):
            if demand[seq.tenant] < budget:
                demand[seq.tenant] += todo_tokens(seq) + seq.num_draft
        self._left = shares(demand, state.served, budget, state.pace, slowdown)

    def key(self, seq: SequenceView) -> Urgency:
        """Sort key of the step's order, smaller comes first."""
        return self._keys[seq.id]

    def left(self, tenant: str) -> int:
        """Tokens of the step that the tenant may still take."""
        return self._left.get(tenant, 0)

    def take(self, tenant: str, tokens: int) -> None:
        """Notes tokens that a sequence of the tenant got; negative ones were taken from it."""
        self._left[tenant] -= tokens

    def may_displace(self, seq: SequenceView, other: SequenceView, lost: int) -> bool:
        """Whether `seq` may have the place of another tenant's `other`, which loses `lost` places already.

        The other tenant keeps at least as many as the own one then has, so none of them can follow from
        it; and never gives its first.
        """
        return self.held[other.tenant] - lost > self.held[seq.tenant] + 1


def shares(
    demand: Mapping[str, int], served: Mapping[str, int], budget: int, pace: Pace, slowdown: float
) -> dict[str, int]:
    """Tokens of one step for each tenant: max-min fair, bounded by what the least demanding one bears.

    Args:
        demand: tokens that each tenant has to compute; at least 1 each.
        served: what each tenant had before; who had least goes first where there is not a token for each.
        budget: tokens of the step.
        pace: how long steps take; unknown, nobody gets more tokens than the least demanding.
        slowdown: see `TenantShares`.
    """
    if budget < len(demand):
        return dict.fromkeys(sorted(demand, key=lambda name: served.get(name, 0))[:budget], 1)
    read_tokens = pace.least_s / pace.prompt_token_s if pace.prompt_token_s else 0.0
    least = min(demand.values())
    most = max(1, int(min(budget, (slowdown - 1) * (least + read_tokens))))
    given: dict[str, int] = {}
    left = budget
    order = sorted(demand, key=demand.__getitem__)
    for behind, tenant in zip(range(len(order), 0, -1), order, strict=True):
        bound = demand[tenant] if demand[tenant] == least else most
        given[tenant] = min(demand[tenant], bound, left // behind)
        left -= given[tenant]
    return given
