"""Streams of bytes that no member of a group sends, made from those that members send."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

import numpy as np

from pentad.errors import PentadError
from pentad.execution.ranks.messages import WIRE, Copy, Hello, Peers, Ready, Rows, Setup, Step, Stop, Weight
from pentad.execution.transport.base import BadFrame, Buffer, PeerLost, Received
from pentad.execution.transport.frames import FramedLink
from pentad.execution.transport.handshake import accept_from, connect_to
from pentad.execution.transport.wire import Wire
from rank_support import KEY
from transport_peer import member

SEALED = bytes(range(16))
MAX_FRAME_BYTES = 1 << 16
FRAMES: tuple[tuple[object, tuple[bytes, ...]], ...] = (
    (Hello(address="127.0.0.1:1", holds=b"x" * 32), ()),
    (
        Setup(
            rank=1,
            spec={"record": "ModelSpec", "values": {}},
            layout=None,
            num_blocks=4,
            block_size=16,
            dtype="float32",
            device="cpu",
            threads=1,
            codec="plain",
        ),
        (),
    ),
    (Weight(name="w", format="f32", shape=(2, 2), last=True, extra=False), (bytes(16),)),
    (Peers(addresses=("", "a", "b"), seats=(0, 1, 2)), ()),
    (Ready(weight_bytes=1, kv_block_bytes=1), ()),
    (Step(fields=(("token_ids", "<i4", (2,)),), pieces=1), (np.arange(2, dtype="<i4").tobytes(),)),
    (Copy(what="block", pairs=((1, 2),)), ()),
    (Rows(what="ffn", shape=(1, 2), plain=True), (bytes(8),)),
    (Stop(), ()),
)


class Tape:
    """A stream whose other end has sent these bytes, in pieces, and gone."""

    def __init__(self, data: bytes = b"", rng: random.Random | None = None) -> None:
        self.written = bytearray()
        self._rest = data
        self._rng = rng or random.Random(0)

    def write(self, pieces: Sequence[Buffer], timeout_s: float | None) -> None:
        for piece in pieces:
            self.written += piece

    def read(self, timeout_s: float | None) -> bytes | None:
        return self.exactly(min(len(self._rest), self._rng.choice((1, 7, 64, 4096))))

    def exactly(self, count: int) -> bytes:
        found, self._rest = self._rest[:count], self._rest[count:]
        if len(found) < count:
            raise PeerLost("the tape ends")
        return found

    def close(self) -> None:
        self._rest = b""


def link(stream: Tape, wire: Wire = WIRE, *, sealed: bool) -> FramedLink:
    """One end over a tape; both directions have the same key."""
    key = SEALED if sealed else None
    return FramedLink(stream, 1, wire, max_frame_bytes=MAX_FRAME_BYTES, sending=key, receiving=key)


def recorded(
    rng: random.Random, *, sealed: bool
) -> tuple[list[tuple[object, tuple[bytes, ...]]], list[bytes]]:
    """Some frames and how they look on the wire."""
    tape = Tape()
    end = link(tape, sealed=sealed)
    frames = rng.choices(FRAMES, k=rng.randint(1, 5))
    written = []
    for message, buffers in frames:
        tape.written.clear()
        end.send(message, *buffers)
        written.append(bytes(tape.written))
    return frames, written


def spoiled(rng: random.Random, frames: list[bytes]) -> bytes:
    """Those frames repeated, left out, swapped, cut, or with bytes changed, put in or taken away."""
    frames = list(frames)
    change = rng.randrange(7)
    place = rng.randrange(len(frames))
    if change == 0:
        frames.insert(place, rng.choice(frames))
    elif change == 1:
        del frames[place]
    elif change == 2:
        rng.shuffle(frames)
    data = bytearray(b"".join(frames))
    if change == 3:
        del data[rng.randint(0, len(data)) :]
    elif change == 4:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif change == 5:
        at = rng.randint(0, len(data))
        data[at:at] = rng.randbytes(rng.randint(1, 40))
    elif change == 6:
        data = bytearray(rng.randbytes(rng.randint(0, 300)))
    return bytes(data)


def received(data: bytes, rng: random.Random, *, sealed: bool) -> list[Received]:
    """All frames that come of those bytes before the link ends, as it does with PeerLost or BadFrame."""
    end, found = link(Tape(data, rng), sealed=sealed), []
    try:
        while (frame := end.receive()) is not None:
            assert isinstance(frame.message, WIRE.types)
            found.append(frame)
    except (PeerLost, BadFrame):
        pass
    return found


def sealed_frames_are_a_beginning_of_what_was_sent(seed: int) -> None:
    """Whatever is done to them on their way."""
    rng = random.Random(seed)
    frames, written = recorded(rng, sealed=True)
    got = received(spoiled(rng, written), rng, sealed=True)
    assert len(got) <= len(frames)
    for frame, (message, buffers) in zip(got, frames, strict=False):
        assert frame.message == WIRE.decode(WIRE.encode(message))
        assert [bytes(buffer) for buffer in frame.buffers] == list(buffers)


def bare_frames_are_of_the_wire_or_end_the_link(seed: int) -> None:
    """Without a MAC, as in shared memory."""
    rng = random.Random(seed)
    received(spoiled(rng, recorded(rng, sealed=False)[1]), rng, sealed=False)


def nobody_passes_the_handshake_without_the_key(seed: int) -> None:
    """With bytes of any kind, or a whole handshake that was heard before."""
    rng = random.Random(seed)
    heard = Tape()
    with contextlib.suppress(PeerLost):  # what a member says first; what follows is replayed or made up
        connect_to(lambda data: heard.write([data], None), Tape().exactly, member(1, KEY), WIRE)
    data = spoiled(rng, [bytes(heard.written), rng.randbytes(32)])
    try:
        accept_from(lambda _: None, Tape(data).exactly, member(0, KEY), WIRE)
    except PentadError:
        return
    raise AssertionError("a stranger was let in")


PROPERTIES: tuple[Callable[[int], None], ...] = (
    sealed_frames_are_a_beginning_of_what_was_sent,
    bare_frames_are_of_the_wire_or_end_the_link,
    nobody_passes_the_handshake_without_the_key,
)
