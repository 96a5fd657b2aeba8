"""Frames through rings in shared memory: between processes of one machine.

    writer   ring [ . . . r r r r r r . . . ]   reader      one ring per direction
             doorbell: "so many bytes more"  -->             a socket, which also tells the end
             <-- credits: "so many were read"                another one

The bytes lie in the ring, the numbers go through sockets. So the kernel orders memory between the two
processes, whoever waits sleeps in `poll`, and a process that dies is noticed at once.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pathlib
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pentad.errors import PentadError
from pentad.execution.transport.base import MAX_FRAME_BYTES, Buffer, Member, PeerLost
from pentad.execution.transport.frames import FramedLink
from pentad.execution.transport.handshake import accept_from, connect_to, deadline, exactly, left_s
from pentad.execution.transport.tcp import SocketStream, next_socket, ready, shut
from pentad.execution.transport.wire import Wire
from pentad.ranges import in_range

_log = logging.getLogger(__name__)
_GREETING_S: Final = 2.0
_COUNT: Final = struct.Struct("<I")
_GONE: Final = "the other end is gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemory:
    """Rings in shared memory, for processes of one user on one machine.

    A frame of 1 KiB costs some 10 microseconds at each end; long ones are copied once in and once out.
    Frames longer than the ring pass through it in parts. Others cannot reach the memory: it has no name
    and is handed over through a socket in a folder of this user alone.

    Source: our own; a ring with one writer and one reader, as in LMAX's Disruptor, without its spinning.
    """

    name: ClassVar[str] = "shared-memory"

    ring_bytes: int = 1 << 20
    """Memory per direction: what may be unread before a writer waits."""
    max_frame_bytes: int = MAX_FRAME_BYTES
    """A message and its buffers together, at most."""

    def __post_init__(self) -> None:
        in_range("ring_bytes", self.ring_bytes, least=1 << 12, most=1 << 30)
        in_range("max_frame_bytes", self.max_frame_bytes, least=1024, most=1 << 30)

    def listen(self, member: Member, wire: Wire) -> SharedMemoryListener:
        """See Transport."""
        return SharedMemoryListener(self, member, wire)

    def connect(self, address: str, member: Member, wire: Wire, *, timeout_s: float = 10.0) -> FramedLink:
        """See Transport; `address` is the path of the listener's socket."""
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bell.connect(address)
        except OSError as error:
            bell.close()
            raise PeerLost(f"cannot connect to {address!r}: {error.strerror or error}") from None
        stream = SocketStream(bell)
        try:
            greeting = connect_to(
                lambda data: stream.write([data], timeout_s), exactly(stream.some, timeout_s), member, wire
            )
            if not ready(bell, select.POLLIN, timeout_s):
                raise PeerLost("the listener handed over no memory")
            size, fds, _, _ = socket.recv_fds(bell, _COUNT.size, 2)
            if len(fds) != 2 or len(size) != _COUNT.size:
                raise PeerLost("the listener handed over no memory")
        except BaseException:
            stream.close()
            raise
        memory, credit = fds[0], socket.socket(fileno=fds[1])
        ring_bytes = _COUNT.unpack(size)[0]
        rings = _mapped(memory, ring_bytes)
        link = RingStream(bell, credit, outgoing=rings[1], incoming=rings[0])
        return FramedLink(link, greeting.peer, wire, max_frame_bytes=self.max_frame_bytes)


class SharedMemoryListener:
    """See Listener."""

    def __init__(self, transport: SharedMemory, member: Member, wire: Wire) -> None:
        self._transport = transport
        self._member = member
        self._wire = wire
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="pentad-"))
        self.address = str(self._folder / "s")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.address)
        self._listening.listen()

    def accept(self, timeout_s: float | None = None) -> FramedLink | None:
        """See Listener."""
        until_s = deadline(timeout_s)
        while (bell := next_socket(self._listening, left_s(until_s))) is not None:
            stream = SocketStream(bell)
            try:
                greeting = accept_from(
                    lambda data, s=stream: s.write([data], _GREETING_S),  # type: ignore[misc]
                    exactly(stream.some, _GREETING_S),
                    self._member,
                    self._wire,
                )
                rings, credit = self._hand_over(bell)
            except (PentadError, OSError) as error:
                _log.warning("a stranger was turned away: %s", error)
                stream.close()
                continue
            link = RingStream(bell, credit, outgoing=rings[0], incoming=rings[1])
            return FramedLink(
                link, greeting.peer, self._wire, max_frame_bytes=self._transport.max_frame_bytes
            )
        return None

    def _hand_over(self, bell: socket.socket) -> tuple[tuple[memoryview, memoryview], socket.socket]:
        """Makes memory and credits for a new link and gives the other end its share."""
        ours, theirs = socket.socketpair()
        ring_bytes = self._transport.ring_bytes
        memory = _nameless(2 * ring_bytes)
        try:
            socket.send_fds(bell, [_COUNT.pack(ring_bytes)], [memory, theirs.fileno()])
        except BaseException:
            os.close(memory)
            ours.close()
            raise
        finally:
            theirs.close()
        return _mapped(memory, ring_bytes), ours

    def close(self) -> None:
        """See Listener."""
        shut(self._listening)
        shutil.rmtree(self._folder, ignore_errors=True)


class RingStream:
    """A Stream through two rings.

    Args:
        bell: carries how many bytes were written; closed with the stream.
        credit: carries how many were read; closed with the stream.
        outgoing, incoming: the rings, of equal length.
    """

    def __init__(
        self, bell: socket.socket, credit: socket.socket, *, outgoing: memoryview, incoming: memoryview
    ) -> None:
        bell.setblocking(False)
        credit.setblocking(False)
        self._bell, self._credit = bell, credit
        self._outgoing, self._incoming = outgoing, incoming
        self._free = len(outgoing)
        """Bytes that may be written, as far as the other end has said."""
        self._write_at = 0
        self._read_at = 0
        self._unread = 0
        self._owed = 0
        """Bytes read that the other end has not been told of."""
        self._bells, self._credits = _Counts(bell), _Counts(credit)
        self._closing = threading.Lock()
        self._closed = False

    def write(self, pieces: Sequence[Buffer], timeout_s: float | None) -> None:
        """See Stream."""
        until_s = deadline(timeout_s)
        rung = 0
        for piece in pieces:
            rest = memoryview(piece).cast("B")
            while rest.nbytes:
                if not self._free:
                    self._ring(rung, until_s)
                    rung = 0
                    self._await_room(timeout_s, until_s)
                size = min(self._free, rest.nbytes, len(self._outgoing) - self._write_at)
                self._outgoing[self._write_at : self._write_at + size] = rest[:size]
                self._write_at = (self._write_at + size) % len(self._outgoing)
                self._free -= size
                rung += size
                rest = rest[size:]
        self._ring(rung, until_s)

    def _ring(self, count: int, until_s: float | None) -> None:
        if count:
            _tell(self._bell, count, until_s)

    def _await_room(self, timeout_s: float | None, until_s: float | None) -> None:
        count = self._credits.take(left_s(until_s))
        if count is None:
            raise PeerLost(f"the other end took nothing for {timeout_s} s")
        if count == 0:
            raise PeerLost(_GONE)
        self._free += count

    def read(self, timeout_s: float | None) -> bytes | None:
        """See Stream."""
        if not self._unread:
            count = self._bells.take(timeout_s)
            if not count:
                return None if count is None else b""
            if count > len(self._incoming):
                return b""  # a peer that says so is broken
            self._unread = count
        size = min(self._unread, len(self._incoming) - self._read_at)
        data = bytes(self._incoming[self._read_at : self._read_at + size])
        self._read_at = (self._read_at + size) % len(self._incoming)
        self._unread -= size
        self._owed += size
        # Told in large pieces: few calls, and never more of them unread than the socket holds.
        if self._owed >= len(self._incoming) // 4:
            with contextlib.suppress(PeerLost):
                _tell(self._credit, self._owed, None)
            self._owed = 0
        return data

    def close(self) -> None:
        """See Stream."""
        with self._closing:
            if not self._closed:
                self._closed = True
                shut(self._bell)
                shut(self._credit)


class _Counts:
    """Numbers that come through a socket, added up."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._part = b""

    def take(self, timeout_s: float | None) -> int | None:
        """The sum of what came since; 0 at the end, None when nothing came in time."""
        until_s = deadline(timeout_s)
        while True:
            try:
                data = self._source.recv(1 << 12)
            except BlockingIOError:
                if not ready(self._source, select.POLLIN, left_s(until_s)):
                    return None
                continue
            except OSError:
                return 0
            if not data:
                return 0
            data = self._part + data
            whole = len(data) - len(data) % _COUNT.size
            self._part = data[whole:]
            if whole:
                return sum(int(count) for (count,) in _COUNT.iter_unpack(data[:whole]))


def _tell(target: socket.socket, count: int, until_s: float | None) -> None:
    """Sends one number. Raises PeerLost."""
    rest = _COUNT.pack(count)
    while rest:
        try:
            rest = rest[target.send(rest) :]
        except BlockingIOError:
            if not ready(target, select.POLLOUT, left_s(until_s)):
                raise PeerLost("the other end took nothing in time") from None
        except OSError as error:
            raise PeerLost(f"the other end is gone: {error.strerror or error}") from None


def _nameless(size: int) -> int:
    """Descriptor of that much memory, which no other process can open."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("pentad-ring")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory


def _mapped(memory: int, ring_bytes: int) -> tuple[memoryview, memoryview]:
    """The listener's ring and the connector's; closes the descriptor."""
    try:
        view = memoryview(mmap.mmap(memory, 2 * ring_bytes))
    finally:
        os.close(memory)
    return view[:ring_bytes], view[ring_bytes:]
