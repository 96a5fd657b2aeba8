"""RingStream: bytes through two rings in shared memory, with sockets as doorbells.

    writer   ring [ . . . r r r r r r . . . ]   reader      one ring per direction
             doorbell: "so many bytes more"  -->             a socket, which also tells the end
             <-- credits: "so many were read"                another one

The bytes lie in the ring, the numbers go through sockets. So the kernel orders memory between the two
processes, whoever waits sleeps in `poll`, and a process that dies is noticed at once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from typing import Final

from pentad.execution.transport.base import Buffer, PeerLost
from pentad.execution.transport.handshake import deadline, left_s
from pentad.execution.transport.tcp import ready, shut

_COUNT: Final = struct.Struct("<I")
_GONE: Final = "the other end is gone"


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


def nameless(size: int) -> int:
    """Descriptor of that much memory, which no other process can open."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("pentad-ring")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory


def mapped(memory: int, ring_bytes: int) -> tuple[memoryview, memoryview]:
    """The listener's ring and the connector's; closes the descriptor."""
    try:
        view = memoryview(mmap.mmap(memory, 2 * ring_bytes))
    finally:
        os.close(memory)
    return view[:ring_bytes], view[ring_bytes:]
