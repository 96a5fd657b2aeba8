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
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np

from pentad.choice import Choice, build
from pentad.errors import PentadError
from pentad.execution.codecs.base import Codec
from pentad.execution.quant import stored_bytes
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
from pentad.execution.ranks.records import of_plain
from pentad.execution.ranks.shards import HeldSource
from pentad.execution.transport.base import BadFrame, Link, Listener, Member, PeerLost, Received, Transport
from pentad.execution.weights import StoredTensor, TensorFormat

_log = logging.getLogger(__name__)
MEET_S: Final = 60.0
"""From the start of the ranks until all of them have met: interpreters, imports, weights on their way."""


@dataclass(slots=True)
class Parcel:
    """The tensors that came, whole ones and those on their way."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    extras: set[str] = field(default_factory=set)
    _coming: bytearray = field(default_factory=bytearray)

    def take(self, received: Received) -> None:
        """A part of a tensor. Raises BadFrame for more or less than its shape says."""
        message: Weight = received.message
        self._coming += received.buffers[0]
        size = stored_bytes(cast("TensorFormat", message.format), message.shape)
        if len(self._coming) > size or (message.last and len(self._coming) != size):
            raise BadFrame(f"tensor {message.name!r} has {size} bytes, {len(self._coming)} came")
        if not message.last:
            return
        self.tensors[message.name] = StoredTensor(
            name=message.name,
            format=cast("TensorFormat", message.format),
            shape=message.shape,
            data=np.frombuffer(bytes(self._coming), np.uint8),
        )
        self._coming.clear()
        if message.extra:
            self.extras.add(message.name)


def serve_rank(transport: Transport, address: str, member: Member, *, wait_s: float = MEET_S) -> None:
    """Joins the group whose rank 0 listens at `address` and computes until it ends.

    Raises PeerLost when another rank is gone, and what loading a model raises.
    """
    until_s = time.monotonic() + wait_s
    driver = _connected(transport, address, member, until_s)
    listener = transport.listen(member, WIRE)
    try:
        driver.send(Hello(address=listener.address))
        setup, parcel, peers = _told(driver)
        links = {0: driver} | _met(transport, listener, member, peers, until_s)
    finally:
        listener.close()
    codec: Codec = build("codec", Choice.of(setup.codec))
    group = RankGroup(member.rank, links, codec)
    try:
        _compute(group, setup, parcel)
    finally:
        group.close()


def _compute(group: RankGroup, setup: Setup, parcel: Parcel) -> None:
    from pentad.execution.torch.rank import TorchRank

    rank = TorchRank(
        of_plain(setup.spec),
        of_plain(setup.layout),
        group,
        HeldSource(parcel.tensors, parcel.extras),
        num_blocks=setup.num_blocks,
        block_size=setup.block_size,
        dtype=setup.dtype,  # type: ignore[arg-type]
        device=setup.device,
        threads=setup.threads,
    )
    parcel.tensors.clear()
    driver = group.links[0]
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
            case Weight() if len(received.buffers) == 1:
                parcel.take(received)
            case Peers() as peers if setup is not None:
                return setup, parcel, peers
            case other:
                raise BadFrame(f"rank 0 sent {other!r:.80} before there was a model")
    raise PeerLost("rank 0 said nothing")


def _met(
    transport: Transport, listener: Listener, member: Member, peers: Peers, until_s: float
) -> dict[int, Link]:
    """Links to the other ranks but 0: to those in front it connects, the others come."""
    links = {
        rank: _connected(transport, peers.addresses[rank], member, until_s) for rank in range(1, member.rank)
    }
    while len(links) < member.size - 2:
        link = listener.accept(max(until_s - time.monotonic(), 0.1))
        if link is None:
            raise PeerLost("not all ranks have come")
        links[link.peer] = link
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
