"""Frames between threads of one process: the messages themselves, through bounded queues."""

from __future__ import annotations

import functools
import hmac
import itertools
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.errors import Incompatible, TooLarge, Unauthorized
from pentad.execution.transport.base import MAX_BUFFERS, MAX_FRAME_BYTES, Buffer, Member, PeerLost, Received
from pentad.execution.transport.handshake import deadline, left_s
from pentad.execution.transport.wire import Wire
from pentad.ranges import in_range

_GONE = "the other end is gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """Threads of one process: messages are passed on as they are, only buffers are copied.

    `serve` with this transport has no worker: its engine runs in its own process.

    Source: our own.
    """

    name: ClassVar[str] = "in-process"

    max_unread_frames: int = 256
    """Frames that may be unread before a sender waits."""
    max_frame_bytes: int = MAX_FRAME_BYTES
    """The buffers of a frame together, at most."""

    def __post_init__(self) -> None:
        in_range("max_unread_frames", self.max_unread_frames, least=1, most=1 << 20)
        in_range("max_frame_bytes", self.max_frame_bytes, least=1024, most=1 << 30)

    def listen(self, member: Member, wire: Wire) -> InProcessListener:
        """See Transport."""
        return InProcessListener(self, member, wire)

    def connect(self, address: str, member: Member, wire: Wire, *, timeout_s: float = 10.0) -> InProcessLink:
        """See Transport; `address` is what the listener says."""
        del timeout_s  # nothing here takes time
        listener = _listeners().get(address)
        if listener is None:
            raise PeerLost(f"nobody listens at {address!r}")
        theirs = listener.member
        if wire.name != listener.wire.name or wire.version != listener.wire.version:
            raise Incompatible(
                f"the other end speaks {listener.wire.name} {listener.wire.version}, this one {wire.version}",
                hint="run the same release of Pentad at both ends",
            )
        same = theirs.group == member.group and theirs.size == member.size
        if not (hmac.compare_digest(theirs.key, member.key) and same and theirs.rank != member.rank):
            raise Unauthorized(
                "the other end has another key or belongs to another group",
                hint="give all members the same key",
            )
        there, back = _Queue(self.max_unread_frames), _Queue(self.max_unread_frames)
        listener.offer(InProcessLink(member.rank, wire, there, back, self.max_frame_bytes))
        return InProcessLink(theirs.rank, wire, back, there, self.max_frame_bytes)


@functools.cache
def _listeners() -> weakref.WeakValueDictionary[str, InProcessListener]:
    """Who listens in this process, by address."""
    return weakref.WeakValueDictionary()


_numbers = itertools.count(1)


class InProcessListener:
    """See Listener."""

    def __init__(self, transport: InProcess, member: Member, wire: Wire) -> None:
        self.transport, self.member, self.wire = transport, member, wire
        self.address = f"in-process:{next(_numbers)}"
        self._change = threading.Condition()
        self._offered: deque[InProcessLink] = deque()
        self._closed = False
        _listeners()[self.address] = self

    def offer(self, link: InProcessLink) -> None:
        """Takes the listener's end of a new link."""
        with self._change:
            self._offered.append(link)
            self._change.notify()

    def accept(self, timeout_s: float | None = None) -> InProcessLink | None:
        """See Listener."""
        with self._change:
            self._change.wait_for(lambda: self._offered or self._closed, timeout_s)
            if self._offered:
                return self._offered.popleft()
            if self._closed:
                raise PeerLost("the listener is closed")
            return None

    def close(self) -> None:
        """See Listener."""
        _listeners().pop(self.address, None)
        with self._change:
            self._closed = True
            self._change.notify_all()


class _Queue:
    """Frames on their way in one direction."""

    def __init__(self, most: int) -> None:
        self.change = threading.Condition()
        self.frames: deque[Received] = deque()
        self.most = most
        self.closed = False

    def close(self) -> None:
        with self.change:
            self.closed = True
            self.change.notify_all()


class InProcessLink:
    """See Link."""

    def __init__(
        self, peer: int, wire: Wire, incoming: _Queue, outgoing: _Queue, max_frame_bytes: int
    ) -> None:
        self.peer = peer
        self._wire = wire
        self._incoming, self._outgoing = incoming, outgoing
        self._max_frame_bytes = max_frame_bytes
        self._ended = False

    def send(self, message: Any, *buffers: Buffer, timeout_s: float | None = None) -> None:
        """See Link."""
        assert isinstance(message, self._wire.types), f"{type(message).__name__} is not of this wire"
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        if size > self._max_frame_bytes or len(buffers) > MAX_BUFFERS:
            raise TooLarge(
                f"a frame of {size} bytes in {len(buffers)} buffers, "
                f"at most {self._max_frame_bytes} in {MAX_BUFFERS} are possible",
                hint="send it in parts",
            )
        frame = Received(message, [bytes(buffer) for buffer in buffers])
        queue = self._outgoing
        with queue.change:
            queue.change.wait_for(lambda: queue.closed or len(queue.frames) < queue.most, timeout_s)
            if not queue.closed and len(queue.frames) < queue.most:
                queue.frames.append(frame)
                queue.change.notify_all()
                return
        reason = _GONE if queue.closed else f"the other end took nothing for {timeout_s} s"
        self.close()
        raise PeerLost(reason)

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """See Link."""
        queue, until_s = self._incoming, deadline(timeout_s)
        with queue.change:
            queue.change.wait_for(lambda: queue.frames or queue.closed, left_s(until_s))
            if queue.frames and not self._ended:
                queue.change.notify_all()
                return queue.frames.popleft()
            if queue.closed:
                raise PeerLost(_GONE)
            return None

    def close(self) -> None:
        """See Link."""
        self._ended = True
        self._incoming.close()
        self._outgoing.close()
