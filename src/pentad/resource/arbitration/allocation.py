"""Allocation: who holds how much of what is shared, who waits for it, and who gets it next.

capacity    model slots: 4    KV blocks: 64    places of the tool "search": 2
holder a    claims slots 1, search 1      holds slot 1      waits for search 1
holder b    claims search 1, slots 1      holds search 1    wants a slot: granted only while a can still end
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pentad.errors import Conflict, Infeasible, InvalidRequest, UnknownName
from pentad.ranges import in_range
from pentad.registry import near

Amounts = Mapping[str, int]
"""How much of each resource, by its name."""
_Thing = tuple[str, str | None]
"""A resource, or with a tenant what that tenant may hold of it."""


@dataclass(slots=True)
class _Holder:
    tenant: str
    claim: Counter[str]
    held: Counter[str] = field(default_factory=Counter)
    wants: Counter[str] | None = None
    """What it waits for."""

    def things(self, amounts: Amounts, quota: Amounts) -> Iterable[tuple[_Thing, int]]:
        """The amounts, and again those that count against the quota of its tenant."""
        for name, amount in amounts.items():
            yield (name, None), amount
            if name in quota:
                yield (name, self.tenant), amount


class Allocation:
    """Grants shared resources so that all who hold any can end, and nobody waits for ever.

    A holder says at the beginning how much it will hold at most at one time; then it asks for parts of
    that and gives them back in any order. Three rules:

    - **Safe.** A grant is made only if afterwards there is an order in which all who hold something can get
      the rest of their claims and end. So no circle of waiting can close. What tenants may hold at most is a
      resource like any other here, since a circle can close through a quota as well.
    - **In order.** Who holds nothing yet and claims what somebody in front of it waits for does not begin
      before that one. Who holds something may pass, for what it holds comes back only when it goes on.
    - **Quotas.** Who waits for its own tenant's quota alone holds up nobody else's.

    Waiting is bounded: of those in progress one can always end, and while anybody waits, nobody begins
    behind it that could take what it waits for. Cost of a change: the square of the holders that hold
    something, times the resources. Knows no clock and no event loop; `arbiter.py` lets tasks wait.

    Source: banker's algorithm (Dijkstra, EWD 623, 1965; Habermann, CACM 1969). Our difference: order of
    arrival among newcomers, and quotas of tenants as resources.

    Args:
        capacity: how much there is of each resource; at least 1.
        quota: how much of it one tenant may hold; what is not named has none.
    """

    def __init__(self, capacity: Amounts, quota: Amounts | None = None) -> None:
        self._capacity: dict[str, int] = {}
        self._quota: dict[str, int] = {}
        self._holders: dict[str, _Holder] = {}
        self._queue: list[str] = []
        """Who waits, in the order of their asking."""
        self._free: Counter[_Thing] = Counter()
        for name in quota or {}:
            if name not in capacity:
                raise UnknownName(f"quota of {name!r}, which is no resource", hint=near(name, list(capacity)))
        for name, amount in capacity.items():
            self.add(name, amount, (quota or {}).get(name))

    def add(self, name: str, amount: int, quota: int | None = None) -> None:
        """One more resource, with what a tenant may hold of it. Raises Conflict on a name that is taken."""
        in_range(f"capacity of {name!r}", amount, least=1)
        in_range(f"quota of {name!r}", quota, least=1)
        if name in self._capacity:
            raise Conflict(f"there is a resource {name!r} already", hint="give each its own name")
        self._capacity[name] = amount
        self._free[name, None] = amount
        if quota is not None and quota < amount:
            self._quota[name] = quota

    def __contains__(self, name: str) -> bool:
        return name in self._capacity

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who waits, in the order of their asking."""
        return tuple(self._queue)

    def held(self, holder: str) -> Amounts:
        """What one holds now; nothing of one that is not known."""
        known = self._holders.get(holder)
        return {} if known is None else +known.held

    def free(self, name: str, tenant: str) -> int:
        """How much of a resource the tenant could be given now, were nobody in front."""
        left = self._free[name, None]
        if name in self._quota:
            left = min(left, self._free.get((name, tenant), self._quota[name]))
        return left

    def enter(self, holder: str, claim: Amounts, *, tenant: str = "default") -> None:
        """Takes in a holder with the most that it will hold at one time.

        Raises:
            Conflict: its name is in use.
            UnknownName: it claims what there is not.
            Infeasible: it claims more than there is, or than its tenant may hold.
        """
        if holder in self._holders:
            raise Conflict(f"holder {holder!r} is in already", hint="give each holder its own name")
        for name, amount in claim.items():
            if name not in self._capacity:
                raise UnknownName(f"no resource {name!r}", hint=near(name, list(self._capacity)))
            in_range(f"claim of {name!r}", amount, least=0)
            most = self._quota.get(name, self._capacity[name])
            if amount > most:
                whose = "one tenant may hold" if name in self._quota else "there are"
                bound = "quota" if name in self._quota else "capacity"
                raise Infeasible(
                    f"{holder!r} claims {amount} of {name!r}, {whose} {most}",
                    hint=f"claim at most {most}, or raise the {bound}",
                )
        self._holders[holder] = _Holder(tenant=tenant, claim=+Counter(claim))
        for name, quota in self._quota.items():
            self._free.setdefault((name, tenant), quota)

    def ask(self, holder: str, wants: Amounts) -> tuple[str, ...]:
        """Asks for more; who has been granted what they waited for, in order. The holder is one of them, or
        waits and is named by a later change.

        Raises InvalidRequest beyond the holder's claim, Conflict while it waits, UnknownName of a stranger.
        """
        known = self._known(holder)
        if known.wants is not None:
            raise Conflict(f"holder {holder!r} waits already", hint="ask for all of it at once")
        for name, amount in wants.items():
            in_range(f"{name!r} asked for", amount, least=0)
            if known.held[name] + amount > known.claim[name]:
                raise InvalidRequest(
                    f"{holder!r} asks for {amount} of {name!r}, holds {known.held[name]} and claimed "
                    f"{known.claim[name]}",
                    hint="claim the most that is held at one time when entering",
                )
        known.wants = +Counter(wants)
        self._queue.append(holder)
        return self._grant()

    def give(self, holder: str, amounts: Amounts) -> tuple[str, ...]:
        """Takes back what a holder returns; who has been granted what, as of `ask`.

        Raises InvalidRequest for more than it holds, UnknownName of a stranger.
        """
        known = self._known(holder)
        for name, amount in amounts.items():
            if not 0 <= amount <= known.held[name]:
                raise InvalidRequest(
                    f"{holder!r} gives {amount} of {name!r} back and holds {known.held[name]}",
                    hint="give back what was granted",
                )
        self._move(known, amounts, -1)
        return self._grant()

    def withdraw(self, holder: str) -> tuple[str, ...]:
        """Takes back what a holder asked for and was not granted; who has been granted what, as of `ask`."""
        known = self._known(holder)
        if known.wants is not None:
            self._queue.remove(holder)
            known.wants = None
        return self._grant()

    def leave(self, holder: str) -> tuple[str, ...]:
        """Forgets a holder with all that it holds or waits for; who has been granted what, as of `ask`."""
        known = self._known(holder)
        self._move(known, dict(known.held), -1)
        if known.wants is not None:
            self._queue.remove(holder)
        del self._holders[holder]
        if all(other.tenant != known.tenant for other in self._holders.values()):
            for name in self._quota:
                self._free.pop((name, known.tenant), None)
        return self._grant()

    def _known(self, holder: str) -> _Holder:
        if holder not in self._holders:
            raise UnknownName(f"no holder {holder!r}", hint="let it enter with its claim first")
        return self._holders[holder]

    def _move(self, known: _Holder, amounts: Amounts, sign: int) -> None:
        for name, amount in amounts.items():
            known.held[name] += sign * amount
        for thing, amount in known.things(amounts, self._quota):
            self._free[thing] -= sign * amount

    def _grant(self) -> tuple[str, ...]:
        """Goes through those who wait, and grants what the rules allow, until nothing more is granted."""
        granted: list[str] = []
        while (holder := self._next()) is not None:
            granted.append(holder)
        return tuple(granted)

    def _next(self) -> str | None:
        """Grants the first one that may have what it wants, and names it."""
        taken: set[_Thing] = set()
        """What those in front wait for: who claims any of it does not begin."""
        for holder in self._queue:
            known = self._holders[holder]
            assert known.wants is not None, "who stands in the queue waits"
            things = list(known.things(known.wants, self._quota))
            lacks = [thing for thing, amount in things if amount > self._free[thing]]
            newcomer = not any(known.held.values())
            claims = [] if lacks and not newcomer else list(known.things(known.claim, self._quota))
            passes = newcomer and any(thing in taken for thing, _ in claims)
            if not lacks and not passes and self._safe_with(known, self._quota):
                self._queue.remove(holder)
                self._move(known, known.wants, 1)
                known.wants = None
                return holder
            if lacks:
                own = all(tenant is not None for _, tenant in lacks)
                held_up = things
            else:  # what it is not given yet is the rest of its claim
                own = not passes and self._safe_with(known, {})
                held_up = claims
            taken.update(thing for thing, _ in held_up if not own or thing[1] is not None)
        return None

    def _safe_with(self, known: _Holder, quota: Amounts) -> bool:
        """Whether all can end, within their tenants' quotas, once one has been given what it wants."""
        assert known.wants is not None, "it wants something"
        if _can_end(known, self._free, quota):
            return True  # it can end first, and leaves what was there before, which was safe
        self._move(known, known.wants, 1)
        try:
            return self._safe(quota)
        finally:
            self._move(known, known.wants, -1)

    def _safe(self, quota: Amounts) -> bool:
        """Whether all who hold something can get the rest of their claims and end, one after the other."""
        free = Counter(self._free)
        left = [known for known in self._holders.values() if any(known.held.values())]
        while left:
            ends = [known for known in left if _can_end(known, free, quota)]
            if not ends:
                return False
            for known in ends:
                free.update(dict(known.things(known.held, quota)))
            left = [known for known in left if known not in ends]
        return True


def _can_end(known: _Holder, free: Mapping[_Thing, int], quota: Amounts) -> bool:
    held = known.held
    for name, amount in known.claim.items():
        rest = amount - held[name]
        if rest > free[name, None] or (name in quota and rest > free[name, known.tenant]):
            return False
    return True
