"""Frames on a stream of bytes: lengths first, then the message, then its buffers, and a MAC where asked.

    payload bytes u32 | buffers u32 | length of each buffer u32 ... | message | buffers ... | MAC, 16 bytes

The payload is all between the first two numbers and the MAC. The MAC is keyed BLAKE2b over the frame's
number and the frame, so that a changed, repeated, left out or reordered frame ends the link.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final, Protocol

from pentad.errors import TooLarge
from pentad.execution.transport.base import MAX_BUFFERS, BadFrame, Buffer, PeerLost, Received
from pentad.execution.transport.handshake import deadline, left_s
from pentad.execution.transport.wire import NotOfThisWire, Wire

_HEAD: Final = struct.Struct("<II")
_MAC_BYTES: Final = 16
_GONE: Final = "the other end is gone"


class Stream(Protocol):
    """A connection that carries bytes in order."""

    def write(self, pieces: Sequence[Buffer], timeout_s: float | None) -> None:
        """Writes all, waiting for room at most so long. Raises PeerLost, then some may have been written."""
        ...

    def read(self, timeout_s: float | None) -> bytes | None:
        """What has come, at least a byte; b"" at the end, None when nothing came in time."""
        ...

    def close(self) -> None:
        """Ends both directions and wakes whoever waits. May be called twice."""
        ...


class FramedLink:
    """A Link over a stream.

    Args:
        stream: closed together with the link.
        peer: rank of the other end.
        wire: of the messages.
        max_frame_bytes: of a payload, sent or received.
        sending, receiving: keys of the MACs; None for a stream that nobody else can reach.
    """

    def __init__(
        self,
        stream: Stream,
        peer: int,
        wire: Wire,
        *,
        max_frame_bytes: int,
        sending: bytes | None = None,
        receiving: bytes | None = None,
    ) -> None:
        self.peer = peer
        self._stream = stream
        self._wire = wire
        self._max_frame_bytes = max_frame_bytes
        self._sealer = None if sending is None else _Sealer(sending)
        self._opener = None if receiving is None else _Sealer(receiving)
        self._sending = threading.Lock()
        self._pending = bytearray()
        """What has come of frames that are not whole yet, or not given out."""

    def send(self, message: Any, *buffers: Buffer, timeout_s: float | None = None) -> None:
        """See Link."""
        body = self._wire.encode(message)
        sizes = [memoryview(buffer).nbytes for buffer in buffers]
        payload = 4 * len(sizes) + len(body) + sum(sizes)
        if payload > self._max_frame_bytes or len(sizes) > MAX_BUFFERS:
            raise TooLarge(
                f"a frame of {payload} bytes in {len(sizes)} buffers, "
                f"at most {self._max_frame_bytes} in {MAX_BUFFERS} are possible",
                hint="send it in parts",
            )
        head = _HEAD.pack(payload, len(sizes))
        pieces: list[Buffer] = [head + struct.pack(f"<{len(sizes)}I", *sizes) + body, *buffers]
        with self._sending:
            if self._sealer is not None:
                pieces.append(self._sealer.mac(pieces))
            try:
                self._stream.write(pieces, timeout_s)
            except PeerLost:
                self._stream.close()
                raise

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """See Link."""
        until_s = deadline(timeout_s)
        while True:
            try:
                if (found := self._take()) is not None:
                    return found
            except (BadFrame, NotOfThisWire) as error:
                self._stream.close()
                self._pending.clear()
                raise error if isinstance(error, BadFrame) else BadFrame(error.message) from None
            piece = self._stream.read(left_s(until_s))
            if piece is None:
                return None
            if not piece:
                self._stream.close()
                raise PeerLost("the other end ended within a frame" if self._pending else _GONE)
            self._pending += piece

    def _take(self) -> Received | None:
        """The first frame of what is pending, if it is whole."""
        pending = self._pending
        if len(pending) < _HEAD.size:
            return None
        payload, count = _HEAD.unpack_from(pending)
        if payload > self._max_frame_bytes or count > MAX_BUFFERS or payload < 4 * count:
            raise BadFrame(
                f"a frame of {payload} bytes in {count} buffers came, "
                f"at most {self._max_frame_bytes} in {MAX_BUFFERS} are taken"
            )
        end = _HEAD.size + payload
        whole = end if self._opener is None else end + _MAC_BYTES
        if len(pending) < whole:
            return None
        frame = bytes(memoryview(pending)[:end])
        if self._opener is not None:
            self._opener.check(frame, bytes(memoryview(pending)[end:whole]))
        del pending[:whole]
        return self._opened(memoryview(frame)[_HEAD.size :], count)

    def _opened(self, payload: memoryview, count: int) -> Received:
        sizes = struct.unpack_from(f"<{count}I", payload)
        begin = len(payload) - sum(sizes)
        if begin < 4 * count:
            raise BadFrame("the buffers of a frame are longer than the frame")
        message = self._wire.decode(payload[4 * count : begin])
        buffers = []
        for size in sizes:
            buffers.append(payload[begin : begin + size])
            begin += size
        return Received(message, buffers)

    def close(self) -> None:
        """See Link."""
        self._stream.close()


class _Sealer:
    """MACs of one direction's frames, in their order."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=_MAC_BYTES)
        self._number = 0

    def mac(self, pieces: Sequence[Buffer]) -> bytes:
        """Of the next frame."""
        digest = self._keyed.copy()
        digest.update(self._number.to_bytes(8, "little"))
        for piece in pieces:
            digest.update(piece)
        self._number += 1
        return digest.digest()

    def check(self, frame: bytes, mac: bytes) -> None:
        """Raises BadFrame unless the MAC is the next frame's."""
        # Not a secret that could be guessed byte by byte: the link ends with the first wrong one.
        if self.mac([frame]) != mac:
            raise BadFrame("a frame was changed on its way, or is not from the other end")
