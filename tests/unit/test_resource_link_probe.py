"""Links between hosts: the echo of both sides over a pair of sockets, and callers that are none of ours."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from pentad.errors import InvalidRequest
from pentad.resource.profile.link_probe import MAX_BYTES, answer, measure, measure_over


def answering(connection: socket.socket, failures: list[BaseException]) -> threading.Thread:
    def run() -> None:
        try:
            with connection:
                answer(connection)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_both_directions_and_the_round_trip_are_measured() -> None:
    ours, theirs = socket.socketpair()
    failures: list[BaseException] = []
    thread = answering(theirs, failures)
    with ours:
        ours.settimeout(20)
        found = measure_over(ours, "edge", rounds=20, size_bytes=3_000_001)
    thread.join(timeout=20)
    assert not failures
    assert found.host == "edge"
    assert 0 < found.latency_s < 1
    assert min(found.up_bytes_per_s, found.down_bytes_per_s) > 1e6


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1", b"pentad-link-1\n" + struct.pack("!cQ", b"u", MAX_BYTES + 1), b"pentad"],
    ids=repr,
)
def test_other_callers_are_cut_off(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    failures: list[BaseException] = []
    thread = answering(theirs, failures)
    with ours:
        ours.sendall(sent)
    thread.join(timeout=20)
    assert len(failures) == 1


def test_a_server_that_is_not_ours_is_told_apart() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"SSH-2.0-OpenSSH_9\r\n")
        with pytest.raises(OSError, match="something else answers"):
            measure_over(ours, "edge", rounds=1, size_bytes=1)


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="size_bytes"):
        measure("edge", size_bytes=MAX_BYTES + 1)
