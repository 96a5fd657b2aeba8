"""What a transport promises: links that carry typed messages and bytes, in order, between members of a group.

    rank 0, drives             rank 1, computes
    listen() -> Listener  <--  connect(address) -> Link
    accept() -> Link           send(message, *buffers) --> receive() -> Received(message, buffers)

A group is the processes that work on one thing together: an engine and who drives it now, stages and
shards of one model later. Every link knows the rank of the other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pentad.errors import BackendFailed, InvalidRequest
from pentad.execution.transport.wire import Wire

Buffer = bytes | bytearray | memoryview
MAX_FRAME_BYTES: Final = 64 << 20
"""A message and its buffers together, unless a transport is told otherwise."""
MAX_BUFFERS: Final = 1024
KEY_BYTES: Final = 32


class PeerLost(BackendFailed):
    """The other end is gone, or has taken nothing for too long. The link is closed."""


class BadFrame(BackendFailed):
    """The other end sent what no member of the group sends. The link is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One process's place in a group."""

    group: str
    """Names what the members work on; members of another group are refused."""
    rank: int
    """0 to `size` - 1."""
    size: int
    key: bytes = field(repr=False)
    """Shared by the members, `KEY_BYTES` random bytes; who lacks it is refused."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InvalidRequest(f"rank {self.rank} of {self.size}", hint="ranks are 0 to size - 1")
        if len(self.key) < KEY_BYTES:
            raise InvalidRequest(
                f"a group's key has {len(self.key)} bytes", hint=f"give {KEY_BYTES} random ones"
            )


@dataclass(frozen=True, slots=True)
class Received:
    """One frame: a message of the wire's types, and the bytes that came with it."""

    message: Any
    buffers: Sequence[Buffer] = ()


class Link(Protocol):
    """One end of a connection. One thread receives; any number may send.

    Frames arrive whole and in the order in which `send` took them.
    """

    @property
    def peer(self) -> int:
        """Rank of the other end."""
        ...

    def send(self, message: Any, *buffers: Buffer, timeout_s: float | None = None) -> None:
        """Hands a frame over. Waits while the other end has too much unread.

        Args:
            message: of one of the wire's types; not changed afterwards.
            buffers: sent as they are, behind the message.
            timeout_s: longest wait; then the other end counts as lost. None: any.

        Raises:
            TooLarge: more than a frame may have; nothing was sent.
            PeerLost: the other end is gone, or made no room in time.
        """
        ...

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """The next frame; None when there was none within `timeout_s`. None waits for ever, without polling.

        Raises:
            PeerLost: the other end is gone. All that it sent whole has been given out before.
            BadFrame: it sent garbage, too much, or a message of no known type.
        """
        ...

    def close(self) -> None:
        """Ends the link; the other end, and whoever waits at this one, gets PeerLost. May be called twice."""
        ...


class Listener(Protocol):
    """Where others of the group connect."""

    @property
    def address(self) -> str:
        """What `connect` takes."""
        ...

    def accept(self, timeout_s: float | None = None) -> Link | None:
        """The next member's link; None when none came within `timeout_s`.

        Strangers are turned away, and logged. Raises PeerLost once it is closed.
        """
        ...

    def close(self) -> None:
        """Ends listening; links go on. May be called twice."""
        ...


class Transport(Protocol):
    """How frames travel (coverage.md, interface 18). Immutable; links and listeners hold all state."""

    @property
    def name(self) -> str: ...

    def listen(self, member: Member, wire: Wire) -> Listener:
        """Begins to listen as this member."""
        ...

    def connect(self, address: str, member: Member, wire: Wire, *, timeout_s: float = 10.0) -> Link:
        """A link to who listens there.

        Raises:
            Unauthorized: another key, or another group.
            Incompatible: another version of the wire.
            PeerLost: nobody is there, or no member of a group.
        """
        ...
