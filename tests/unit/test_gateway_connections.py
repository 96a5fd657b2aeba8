"""Idle connections go first: the oldest of the peer that has most."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from pentad.application.gateway.connections import RESERVED_FILES, IdleConnections, connections_within


class Wire:
    """A transport that knows whether it was closed."""

    closed = False

    def abort(self) -> None:
        self.closed = True


def test_the_oldest_idle_connection_of_the_greediest_peer_makes_room() -> None:
    idle = IdleConnections(3)
    wires: list[Any] = [Wire() for _ in range(4)]
    idle.add("quiet", wires[0])
    for wire in wires[1:]:
        idle.add("greedy", wire)
    assert idle.make_room(3)
    assert not any(wire.closed for wire in wires)
    assert idle.make_room(4)
    assert [wire.closed for wire in wires] == [False, True, False, False]
    for wire in wires[2:]:
        idle.remove("greedy", wire)
    idle.remove("greedy", wires[3])
    idle.remove("quiet", wires[0])
    assert not idle.make_room(4), "none is idle"


@pytest.mark.parametrize(
    ("soft", "hard", "possible", "raised"),
    [
        (1024, 1 << 20, 4096, 4096 + RESERVED_FILES),
        (1024, 1024, 1024 - RESERVED_FILES, None),
        (1024, resource.RLIM_INFINITY, 4096, 4096 + RESERVED_FILES),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 4096, None),
        (100, 100, 1, None),
    ],
)
def test_connections_stay_within_what_the_process_may_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, possible: int, raised: int | None
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert connections_within(4096) == possible
    assert limits == ([] if raised is None else [(raised, hard)])
