"""Connections: how many there may be, and which idle one makes room for a new one."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import OrderedDict

logger = logging.getLogger("pentad.gateway")

RESERVED_FILES = 192
"""Files that the process keeps for itself: models, journal, tools, and connections of its own."""


def connections_within(wanted: int) -> int:
    """Connections that the process can hold beside its own files, at most `wanted`.

    Raises the limit of open files as far as it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + RESERVED_FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + RESERVED_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    possible = wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_FILES))
    if possible < wanted:
        logger.info("at most %d connections: %d files may be open", possible, soft)
    return possible


class IdleConnections:
    """Connections with no request under way, by peer; the oldest of the peer with most go first.

    So clients that connect and say nothing cannot keep others out, whatever their number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: dict[str, OrderedDict[asyncio.Transport, None]] = {}

    def add(self, peer: str, transport: asyncio.Transport) -> None:
        """The connection waits for a request from now on."""
        self._idle.setdefault(peer, OrderedDict())[transport] = None

    def remove(self, peer: str, transport: asyncio.Transport) -> None:
        """The connection has a request, or is gone."""
        own = self._idle.get(peer)
        if own is not None and transport in own:
            del own[transport]
            if not own:
                del self._idle[peer]

    def make_room(self, open_connections: int) -> bool:
        """Closes an idle connection if there are too many. False when none is idle."""
        if open_connections <= self._limit:
            return True
        if not self._idle:
            return False
        peer = max(self._idle, key=lambda name: len(self._idle[name]))
        oldest = next(iter(self._idle[peer]))
        self.remove(peer, oldest)
        oldest.abort()
        return True
