"""The agent of one node: it runs what it has leases for, and stops when it is not sure of them any more."""

from __future__ import annotations

from collections.abc import Iterable

from pentad.resource.inventory.controller import Lease


class NodeAgent:
    """Keeps a node's leases between heartbeats.

    Args:
        name: of the node.
        lease_s: how long a lease holds after the heartbeat that was answered was sent.
    """

    def __init__(self, name: str, *, lease_s: float) -> None:
        self.name = name
        self._lease_s = lease_s
        self._leases: dict[str, Lease] = {}
        self._until_s = float("-inf")

    def answered(self, leases: Iterable[Lease], sent_s: float) -> None:
        """Takes the answer to a heartbeat in: these are all its leases."""
        self._leases = {lease.work.id: lease for lease in leases}
        self._until_s = sent_s + self._lease_s

    def granted(self, lease: Lease) -> None:
        """A lease between two heartbeats, which holds as long as the others."""
        self._leases[lease.work.id] = lease

    def running(self, now_s: float) -> tuple[str, ...]:
        """The work that it may run now; none once its leases may have been given to others."""
        if now_s >= self._until_s:
            self._leases = {}
        return tuple(self._leases)
