"""The central controller: who has what, for how long, and where the work of lost nodes goes.

node agent --heartbeat--> controller --grants, renewals--> node agent
                                          `-- no heartbeat for lease_s --> its work goes to other nodes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pentad.errors import Conflict, Infeasible, NotFound
from pentad.ranges import in_range
from pentad.resource.inventory.amounts import Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something that needs amounts of one node for as long as it runs."""

    id: str
    need: Amounts
    site: str = ""
    """Where it should run if there is room; elsewhere the nearest tier is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as it joined."""

    name: str
    amounts: Amounts
    site: str = ""
    tier: int = 0
    """0: edge; higher ones are farther away, as regional and central clouds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A node's right to run a piece of work."""

    work: Work
    node: str
    number: int
    """Rises with each grant: of two leases of one piece of work the higher one counts."""


@dataclass(slots=True)
class _Member:
    node: Node
    seen_s: float
    leases: dict[str, Lease] = field(default_factory=dict)
    taken: Amounts = field(default_factory=Amounts)

    def put(self, lease: Lease) -> None:
        self.leases[lease.work.id] = lease
        self.taken += lease.work.need

    def take(self, work_id: str) -> None:
        del self.leases[work_id]
        # Added up anew, so that rounding does not add up.
        self.taken = sum((lease.work.need for lease in self.leases.values()), Amounts())


class Controller:
    """Grants leases out of one inventory.

    A node that has not been heard of for `lease_s` is lost: its leases end and its work is given to others,
    or waits for room. Agents stop their work `lease_s` after they sent the last heartbeat that was answered,
    which is never later than here, so no work runs twice and nothing is allocated twice.

    Args:
        heartbeat_s: how often agents report.
        lease_s: how long a lease holds without being renewed; None: one and a half heartbeats, so that a lost
            node's work is elsewhere before its second missed one.

    Raises:
        InvalidRequest: a lease is not longer than a heartbeat.
    """

    def __init__(self, *, heartbeat_s: float, lease_s: float | None = None) -> None:
        in_range("heartbeat_s", heartbeat_s, above=0)
        in_range("lease_s", lease_s, above=heartbeat_s)
        self.heartbeat_s = heartbeat_s
        self.lease_s = 1.5 * heartbeat_s if lease_s is None else lease_s
        self.waiting: dict[str, Work] = {}
        """Work for which there is no room, in the order in which it came."""
        self._members: dict[str, _Member] = {}
        self._where: dict[str, Lease] = {}
        self._number = 0

    @property
    def leases(self) -> Mapping[str, Lease]:
        """By work, those that hold now."""
        return self._where

    def join(self, node: Node, now_s: float) -> tuple[Lease, ...]:
        """Takes a node in, and returns leases of work that waited. One that was there before starts empty.

        Raises:
            Conflict: a node of that name is there and has been heard of.
        """
        there = self._members.get(node.name)
        if there is not None and now_s - there.seen_s < self.lease_s:
            raise Conflict(
                f"node {node.name!r} is in the inventory and was heard of {now_s - there.seen_s:.3g} s ago",
                hint="give the node its own name, or let its lease run out",
            )
        self._drop(node.name)
        self._members[node.name] = _Member(node, now_s)
        return self._retry()

    def heartbeat(self, name: str, now_s: float) -> tuple[Lease, ...]:
        """Renews a node's leases and returns all that it has; what it runs beside these it must stop.

        Args:
            name: of the node.
            now_s: when it is received.

        Raises:
            NotFound: the node is not in the inventory, or was lost; it must join again.
        """
        self.expire(now_s)
        member = self._members.get(name)
        if member is None:
            raise NotFound(f"node {name!r} is not in the inventory", hint="join again")
        member.seen_s = now_s
        return tuple(member.leases.values())

    def request(self, work: Work, now_s: float) -> Lease | None:
        """A lease for a piece of work; None: it waits until there is room.

        Raises:
            Conflict: there is a lease for it, or it waits.
            Infeasible: it would not even fit on the largest node if that were empty.
        """
        self.expire(now_s)
        if work.id in self._where or work.id in self.waiting:
            raise Conflict(f"work {work.id!r} was asked for before", hint="release it first")
        if self._members and not any(
            work.need.fits(each.node.amounts, Amounts()) for each in self._members.values()
        ):
            raise Infeasible(
                f"no node has what work {work.id!r} needs: {work.need}",
                hint="ask for less, or add a larger node",
                param="need",
            )
        lease = self._grant(work)
        if lease is None:
            self.waiting[work.id] = work
        return lease

    def release(self, work_id: str, now_s: float) -> tuple[Lease, ...]:
        """Ends a piece of work; returns the leases of others that waited for its room.

        Raises:
            NotFound: nobody asked for it.
        """
        self.expire(now_s)
        lease = self._where.pop(work_id, None)
        if lease is None and self.waiting.pop(work_id, None) is None:
            raise NotFound(f"there is no work {work_id!r}", hint="look at `leases` and `waiting`")
        if lease is not None:
            self._members[lease.node].take(work_id)
        return self._retry()

    def expire(self, now_s: float) -> tuple[Lease, ...]:
        """Takes out nodes that are lost, and returns the new leases of their work."""
        lost = [name for name, each in self._members.items() if now_s - each.seen_s >= self.lease_s]
        for name in lost:
            self._drop(name)
        return self._retry() if lost else ()

    def _drop(self, name: str) -> None:
        """A node is gone; its work waits in front of the rest, since it was there before."""
        member = self._members.pop(name, None)
        if member is None:
            return
        for work_id in member.leases:
            del self._where[work_id]
        self.waiting = {lease.work.id: lease.work for lease in member.leases.values()} | self.waiting

    def _retry(self) -> tuple[Lease, ...]:
        """Leases for what waits and now has room; what comes later may overtake what is too large."""
        found = []
        for work in list(self.waiting.values()):
            lease = self._grant(work)
            if lease is not None:
                del self.waiting[work.id]
                found.append(lease)
        return tuple(found)

    def _grant(self, work: Work) -> Lease | None:
        """On the nearest tier with room, its own site first, and there on the fullest node that it fits
        on."""
        room = [each for each in self._members.values() if work.need.fits(each.node.amounts, each.taken)]
        if not room:
            return None
        best = min(
            room,
            key=lambda each: (
                each.node.site != work.site,
                each.node.tier,
                -each.taken.share_of(each.node.amounts),
            ),
        )
        self._number += 1
        lease = Lease(work=work, node=best.node.name, number=self._number)
        self._where[work.id] = lease
        best.put(lease)
        return lease

    def check_integrity(self) -> None:
        """Raises AssertionError unless no node is over its amounts and each piece of work is in one place."""
        seen: set[str] = set()
        for name, member in self._members.items():
            assert Amounts().fits(member.node.amounts, member.taken), f"node {name!r} has more than it holds"
            for work_id, lease in member.leases.items():
                assert self._where.get(work_id) == lease, f"work {work_id!r} has two leases"
                seen.add(work_id)
        assert seen == set(self._where), "there are leases of nodes that are gone"
        assert not seen & set(self.waiting), "work waits that has a lease"
