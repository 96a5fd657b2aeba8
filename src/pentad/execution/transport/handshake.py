"""How two members prove to each other that they have the group's key, before any frame.

    connector                                  listener
    hello: wire, version, rank, nonce   --->
                                        <---   hello: wire, version, rank, nonce
    proof of the key                    --->   refuses, or
                                        <---   proof of the key

A proof is an HMAC of both hellos and of who gives it, so that it serves no other link and cannot be
sent back. The key itself never travels. Both derive a key for each direction's frames from the same.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pentad.errors import Incompatible, PentadError, Unauthorized
from pentad.execution.transport.base import BadFrame, Member, PeerLost
from pentad.execution.transport.wire import Wire

_MAGIC: Final = b"pentad1\n"
_HELLO: Final = struct.Struct("<8s8sIII32s16s")
"""Magic, wire's digest, wire's version, rank, size, nonce, digest of the group's name."""
_PROOF_BYTES: Final = 32
_ACCEPTED, _REFUSED, _OTHER_VERSION = b"\x01", b"\x00", b"\x02"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a handshake found."""

    peer: int
    """Rank of the other end."""
    sending: bytes
    """Key of the frames that this end sends."""
    receiving: bytes
    """Key of those that it gets."""


Send = Callable[[bytes], None]
Read = Callable[[int], bytes]
"""Exactly that many bytes; raises PeerLost for fewer."""


def connect_to(send: Send, read: Read, member: Member, wire: Wire) -> Greeting:
    """The connector's side.

    Raises:
        Unauthorized: the listener refused our proof, or could not give its own.
        Incompatible: it speaks another version.
        PeerLost, BadFrame: it is no member of any group.
    """
    ours = _hello(member, wire)
    send(ours)
    theirs = read(_HELLO.size)
    peer = _checked(theirs, member, wire)
    both = ours + theirs
    send(_proof(member.key, b"connector", both))
    verdict = read(1)
    if verdict == _OTHER_VERSION:
        raise _other_version(theirs, wire)
    if verdict != _ACCEPTED:
        raise _stranger()
    if not hmac.compare_digest(read(_PROOF_BYTES), _proof(member.key, b"listener", both)):
        raise _stranger()
    return Greeting(peer, _proof(member.key, b"frames >", both), _proof(member.key, b"frames <", both))


def accept_from(send: Send, read: Read, member: Member, wire: Wire) -> Greeting:
    """The listener's side; raises as `connect_to`, once the connector has been told."""
    theirs = read(_HELLO.size)
    ours = _hello(member, wire)
    send(ours)
    both = theirs + ours
    proof = read(_PROOF_BYTES)
    try:
        peer = _checked(theirs, member, wire)
        if not hmac.compare_digest(proof, _proof(member.key, b"connector", both)):
            raise _stranger()
    except PentadError as error:
        send(_OTHER_VERSION if isinstance(error, Incompatible) else _REFUSED)
        raise
    send(_ACCEPTED + _proof(member.key, b"listener", both))
    return Greeting(peer, _proof(member.key, b"frames <", both), _proof(member.key, b"frames >", both))


def deadline(timeout_s: float | None) -> float | None:
    """The instant at which a wait of that length ends."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def left_s(until_s: float | None) -> float | None:
    """Seconds until that instant, at least 0."""
    return None if until_s is None else max(0.0, until_s - time.monotonic())


def _hello(member: Member, wire: Wire) -> bytes:
    group = hashlib.sha256(member.group.encode()).digest()[:16]
    return _HELLO.pack(_MAGIC, wire.digest, wire.version, member.rank, member.size, os.urandom(32), group)


def _checked(hello: bytes, member: Member, wire: Wire) -> int:
    """The rank that a hello names, if it may be one of ours."""
    magic, digest, version, rank, size, _, group = _HELLO.unpack(hello)
    if magic != _MAGIC or digest != wire.digest:
        raise BadFrame(f"the other end does not speak {wire.name}")
    if version != wire.version:
        raise _other_version(hello, wire)
    if group != hashlib.sha256(member.group.encode()).digest()[:16] or size != member.size:
        raise _stranger()
    if rank >= size or rank == member.rank:
        raise BadFrame(f"the other end calls itself rank {rank} of {size}; this one is {member.rank}")
    return int(rank)


def _other_version(hello: bytes, wire: Wire) -> Incompatible:
    theirs = _HELLO.unpack(hello)[2]
    return Incompatible(
        f"the other end speaks {wire.name} {theirs}, this one {wire.version}",
        hint="run the same release of Pentad at both ends",
    )


def _stranger() -> Unauthorized:
    return Unauthorized(
        "the other end has another key or belongs to another group", hint="give all members the same key"
    )


def _proof(key: bytes, role: bytes, hellos: bytes) -> bytes:
    return hmac.new(key, role + b"|" + hellos, "sha256").digest()


def exactly(read_some: Callable[[int, float | None], bytes | None], timeout_s: float) -> Read:
    """A Read over something that gives what it has: b"" at the end, None when nothing came in time."""
    until_s = deadline(timeout_s)

    def read(count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = read_some(count - len(found), left_s(until_s))
            if not piece:
                raise PeerLost("the other end ended the handshake" if piece == b"" else "it said nothing")
            found += piece
        return found

    return read
