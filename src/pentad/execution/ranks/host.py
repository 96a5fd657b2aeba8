"""A rank's process: joins its group, gets its part of the model, and computes what rank 0 says.

Started as `python -m pentad.execution.ranks.host` with one line of JSON on its standard input, which stays
open as long as the one that started it lives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

from pentad.choice import Choice, build
from pentad.errors import PentadError
from pentad.execution.ranks.base import Rank, import_rank, load_rank
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.messages import (
    WIRE,
    Copy,
    Hello,
    Peers,
    Ready,
    Setup,
    Step,
    Stop,
    Weight,
    batch_of,
)
from pentad.execution.ranks.parcels import Parcel
from pentad.execution.ranks.records import of_plain
from pentad.execution.ranks.shards import HeldSource
from pentad.execution.transport.base import BadFrame, Link, Listener, Member, PeerLost, Transport

_log = logging.getLogger(__name__)
MEET_S: Final = 60.0
"""From the start of the ranks until all of them have met: interpreters, imports, weights on their way."""
BACK_S: Final = 60.0
"""For rank 0 to be there again after a link broke."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A part of a model, which stays loaded while the group is formed anew."""

    part: bytes
    rank: Rank


def serve_rank(
    transport: Transport,
    address: str,
    member: Member,
    *,
    wait_s: float = MEET_S,
    back_s: float = BACK_S,
) -> None:
    """Joins the group whose rank 0 listens at `address` and computes until it ends.

    Comes again, with what it has loaded, when a link breaks.

    Args:
        member: its rank is this process's seat; which part it computes, rank 0 says.
        wait_s: for rank 0 to be there the first time.
        back_s: and for it to be there again.

    Raises PeerLost when rank 0 is gone, and what loading a model raises.
    """
    loaded: list[_Loaded] = []
    until_s = time.monotonic() + wait_s
    while True:
        driver = _connected(transport, address, member, until_s)
        try:
            _work(transport, driver, member, loaded)
        except PeerLost as lost:
            _log.warning("seat %d comes again: %s", member.rank, lost)
            until_s = time.monotonic() + back_s
        else:
            return
        finally:
            driver.close()


def _work(transport: Transport, driver: Link, member: Member, loaded: list[_Loaded]) -> None:
    """One life of the group, from hello to the end that rank 0 says. Raises PeerLost when a link breaks."""
    listener = transport.listen(member, WIRE)
    links: dict[int, Link] = {}
    try:
        driver.send(Hello(address=listener.address, holds=loaded[0].part if loaded else b""))
        setup, parcel, peers = _told(driver)
        links = _met(transport, listener, member, setup.rank, peers)
        group = RankGroup(setup.rank, {0: driver} | links, build("codec", Choice.of(setup.codec)))
        if loaded and loaded[0].part == setup.part and not parcel.tensors:
            loaded[0].rank.group = group
        else:
            loaded.clear()
            loaded.append(_Loaded(setup.part, _load(group, setup, parcel)))
        parcel.tensors.clear()
        _compute(loaded[0].rank, driver)
    finally:
        listener.close()
        for link in links.values():
            link.close()


def _load(group: RankGroup, setup: Setup, parcel: Parcel) -> Rank:
    source = HeldSource(parcel.tensors, parcel.extras)
    return load_rank(of_plain(setup.spec), of_plain(setup.layout), group, source, setup)


def _compute(rank: Rank, driver: Link) -> None:
    driver.send(Ready(weight_bytes=rank.weight_bytes, kv_block_bytes=rank.kv_block_bytes))
    while (received := driver.receive()) is not None:
        match received.message:
            case Step(pieces=pieces):
                rank.step(batch_of(received), pieces)
            case Copy(what=what, pairs=pairs):
                rank.copy(what, pairs)
            case Stop():
                return
            case other:
                raise BadFrame(f"rank 0 sent {other!r:.80} between two steps")


def _connected(transport: Transport, address: str, member: Member, until_s: float) -> Link:
    """The link to a rank that may not listen yet."""
    while True:
        try:
            return transport.connect(address, member, WIRE, timeout_s=max(until_s - time.monotonic(), 1.0))
        except PeerLost:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def _told(driver: Link) -> tuple[Setup, Parcel, Peers]:
    """What the rank shall compute, its weights, and who else is there."""
    setup: Setup | None = None
    parcel = Parcel()
    while (received := driver.receive()) is not None:
        match received.message:
            case Setup() as told:
                setup = told
                # Beside the weights, which take their time too.
                threading.Thread(target=import_rank, args=(told,), daemon=True).start()
            case Weight() if len(received.buffers) == 1:
                parcel.take(received)
            case Peers() as peers if setup is not None:
                return setup, parcel, peers
            case other:
                raise BadFrame(f"rank 0 sent {other!r:.80} before there was a model")
    raise PeerLost("rank 0 said nothing")


def _met(
    transport: Transport, listener: Listener, member: Member, rank: int, peers: Peers
) -> dict[int, Link]:
    """Links to the other ranks but 0: to those in front it connects, the others come."""
    until_s = time.monotonic() + MEET_S
    links = {
        other: _connected(transport, peers.addresses[other], member, until_s) for other in range(1, rank)
    }
    ranks = {seat: other for other, seat in enumerate(peers.seats)}
    while len(links) < len(peers.seats) - 2:
        link = listener.accept(max(until_s - time.monotonic(), 0.1))
        if link is None or link.peer not in ranks:
            raise PeerLost("not all ranks have come")
        links[ranks[link.peer]] = link
    return links


def main() -> None:
    """See the module. Exits with 0 when told to stop, 1 when another rank is gone or it failed."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    config = json.loads(sys.stdin.buffer.readline() or b"null")
    if config is None:
        sys.exit(1)
    threading.Thread(target=_lifeline, name="pentad-lifeline", daemon=True).start()
    member = Member(
        group=config["group"], rank=config["rank"], size=config["size"], key=bytes.fromhex(config["key"])
    )
    transport: Transport = build("transport", Choice.of(config["transport"]))
    try:
        serve_rank(transport, config["address"], member)
    except PentadError as error:
        _log.warning("rank %d ends: %s", member.rank, error)
        os._exit(1)
    except Exception:
        _log.exception("rank %d failed", member.rank)
        os._exit(1)
    os._exit(0)


def _lifeline() -> None:
    """Ends this process when the one that started it is gone."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    main()
