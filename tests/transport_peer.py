"""The other end of a link, in a process of its own: sends back what it gets, or does as it is told."""

from __future__ import annotations

import sys
import time

import msgspec

from pentad.choice import Choice, build
from pentad.execution.transport.base import Member, PeerLost
from pentad.execution.transport.wire import Wire


class Say(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A message with some of everything."""

    text: str
    numbers: tuple[int, ...] = ()


class Order(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What the peer shall do: `sleep`, `flood`, `end`."""

    what: str


WIRE = Wire("test", 3, Say | Order)
KEY = bytes(range(32))


def member(rank: int, key: bytes = KEY, *, group: str = "g", size: int = 2) -> Member:
    return Member(group=group, rank=rank, size=size, key=key)


def main(name: str, address: str) -> None:
    link = build("transport", Choice(name=name)).connect(address, member(1), WIRE)
    try:
        while (frame := link.receive()) is not None:
            message = frame.message
            if message == Order("sleep"):
                time.sleep(600)
            elif message == Order("flood"):
                for i in range(2000):
                    link.send(Say("flood", (i,)), bytes(5000))
            elif message == Order("end"):
                return
            else:
                link.send(message, *frame.buffers)
    except PeerLost:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
