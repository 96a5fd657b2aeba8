"""Links between hosts, measured by a plain TCP echo of ours: round trips, then bytes in both directions.

The user starts `serve` on one host and `measure` on the other. The answering side computes nothing, keeps
nothing and gives away nothing; it takes one caller at a time, and bounds how long and how much each may send.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from pentad.errors import Unavailable
from pentad.ranges import in_range

PORT = 7414
MAX_BYTES = 1 << 30
"""That one caller may ask for at once."""
_TIMEOUT_S = 20.0
_CHUNK = 1 << 18
_HELLO = b"pentad-link-1\n"
_ASK = struct.Struct("!cQ")
_PING, _UP, _DOWN, _DONE = b"p", b"u", b"d", b"q"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMeasure:
    """What a TCP connection between two hosts carries."""

    host: str
    latency_s: float
    """One way: half of the median round trip."""
    up_bytes_per_s: float
    down_bytes_per_s: float


def measure(host: str, port: int = PORT, *, rounds: int = 100, size_bytes: int = 32 << 20) -> LinkMeasure:
    """Measures the link to a host on which `serve` runs. Takes a second or two on a fast one.

    Raises:
        InvalidRequest: a size or a number of rounds out of range.
        Unavailable: nobody answers there, or something else does.
    """
    in_range("rounds", rounds, least=1, most=10_000)
    in_range("size_bytes", size_bytes, least=1, most=MAX_BYTES)
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            return measure_over(connection, host, rounds=rounds, size_bytes=size_bytes)
    except OSError as error:
        raise Unavailable(
            f"the link to {host}:{port} cannot be measured: {error}",
            hint=f"start pentad profile --answer-links {port} on that host, and let the port through",
        ) from error


def measure_over(connection: socket.socket, host: str, *, rounds: int, size_bytes: int) -> LinkMeasure:
    """The same over an open connection. Raises OSError where the other side does not answer as `serve`."""
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_HELLO)
    if _received(connection, len(_HELLO)) != _HELLO:
        raise OSError("something else answers there")

    def asked(kind: bytes, size: int, then: Callable[[], object]) -> float:
        begin = time.perf_counter()
        connection.sendall(_ASK.pack(kind, size))
        then()
        return time.perf_counter() - begin

    def send() -> None:
        _send(connection, size_bytes)
        _received(connection, 1)

    trips = sorted(asked(_PING, 0, lambda: _received(connection, 1)) for _ in range(rounds))
    latency_s = trips[rounds // 2] / 2
    up_s = asked(_UP, size_bytes, send)
    down_s = asked(_DOWN, size_bytes, lambda: _drained(connection, size_bytes))
    connection.sendall(_ASK.pack(_DONE, 0))
    return LinkMeasure(
        host=host, latency_s=latency_s, up_bytes_per_s=size_bytes / up_s, down_bytes_per_s=size_bytes / down_s
    )


def serve(host: str = "", port: int = PORT, *, ready: Callable[[int], None] | None = None) -> None:
    """Answers measurements, one caller after another, until it is interrupted.

    Raises OSError where the port cannot be had.
    """
    with socket.create_server((host, port)) as server:
        if ready is not None:
            ready(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError, struct.error):
                connection.settimeout(_TIMEOUT_S)
                answer(connection)


def answer(connection: socket.socket) -> None:
    """One caller's measurement. Raises OSError for a caller that is none of ours, slow or asks too much."""
    if _received(connection, len(_HELLO)) != _HELLO:
        raise OSError("no caller of ours")
    connection.sendall(_HELLO)
    while True:
        kind, size = _ASK.unpack(_received(connection, _ASK.size))
        if kind == _DONE:
            return
        if size > MAX_BYTES or kind not in (_PING, _UP, _DOWN):
            raise OSError("asks for what is not answered")
        if kind == _DOWN:
            _send(connection, size)
            continue
        _drained(connection, size)
        connection.sendall(b"!")


def _send(connection: socket.socket, size: int) -> None:
    chunk = bytes(_CHUNK)
    for start in range(0, size, _CHUNK):
        connection.sendall(chunk[: min(_CHUNK, size - start)])


def _drained(connection: socket.socket, size: int) -> None:
    buffer, left = bytearray(_CHUNK), size
    while left > 0:
        got = connection.recv_into(buffer, min(_CHUNK, left))
        if not got:
            raise OSError("the other side has closed")
        left -= got


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            raise OSError("the other side has closed")
        found += piece
    return found
