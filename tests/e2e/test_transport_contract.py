"""Every transport: order, large frames, backpressure, a peer that dies, wrong keys, garbage, sizes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest, TooLarge, Unauthorized
from pentad.execution.transport.base import (
    MAX_BUFFERS,
    BadFrame,
    Link,
    Listener,
    Member,
    PeerLost,
    Received,
    Transport,
)
from pentad.execution.transport.wire import NotOfThisWire, Wire
from transport_peer import KEY, WIRE, Order, Say, member

NAMES = registry.known("transport")
BETWEEN_PROCESSES = [name for name in NAMES if name != "in-process"]


def transport(name: str, **options: object) -> Transport:
    return build("transport", Choice(name=name, options=options))  # type: ignore[no-any-return]


def joined(made: Transport) -> tuple[Listener, Link, Link]:
    """A listener and both ends of a link to it."""
    listener = made.listen(member(0), WIRE)
    ends: list[Link] = []
    thread = threading.Thread(target=lambda: ends.append(accepted(listener)))
    thread.start()
    connector = made.connect(listener.address, member(1), WIRE)
    thread.join(10)
    return listener, ends[0], connector


def accepted(listener: Listener) -> Link:
    link = listener.accept(10)
    assert link is not None
    return link


def got(link: Link) -> Received:
    frame = link.receive(10)
    assert frame is not None, "no frame came"
    return frame


def send_until_lost(link: Link, size: int, timeout_s: float | None) -> None:
    for _ in range(10_000):
        link.send(Say(""), bytes(size), timeout_s=timeout_s)


@pytest.fixture(params=NAMES)
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Link, Link]]:
    listener, one, other = joined(transport(request.param))
    yield one, other
    for each in (one, other, listener):
        each.close()


class Peer:
    """A process at the other end."""

    def __init__(self, name: str) -> None:
        self.listener = transport(name).listen(member(0), WIRE)
        code = pathlib.Path(__file__).parent.parent / "transport_peer.py"
        self.process = subprocess.Popen([sys.executable, code, name, self.listener.address])
        self.link = accepted(self.listener)

    def close(self) -> None:
        self.link.close()
        self.listener.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture(params=BETWEEN_PROCESSES)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    made = Peer(request.param)
    yield made
    made.close()


class TestEveryTransport:
    def test_tells_each_end_who_the_other_is(self, ends: tuple[Link, Link]) -> None:
        assert [link.peer for link in ends] == [1, 0]

    def test_carries_messages_and_buffers_in_order_both_ways(self, ends: tuple[Link, Link]) -> None:
        one, other = ends
        for i in range(100):
            one.send(Say("there", (i,)), bytes([i]) * i, b"", memoryview(b"abc"))
            other.send(Order(f"back {i}"))
        for i in range(100):
            frame = got(other)
            assert frame.message == Say("there", (i,))
            assert [bytes(each) for each in frame.buffers] == [bytes([i]) * i, b"", b"abc"]
            assert got(one).message == Order(f"back {i}")

    def test_frames_of_many_threads_arrive_whole_and_each_threads_own_in_order(
        self, ends: tuple[Link, Link]
    ) -> None:
        one, other = ends

        def send(who: int) -> None:
            for i in range(50):
                one.send(Say("x" * 300 * (i % 7), (who, i)), bytes([who]) * (i * 97 % 3000))

        threads = [threading.Thread(target=send, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        seen: dict[int, list[int]] = {who: [] for who in range(4)}
        for _ in range(200):
            frame = got(other)
            who, i = frame.message.numbers
            assert bytes(frame.buffers[0]) == bytes([who]) * (i * 97 % 3000)
            seen[who].append(i)
        for thread in threads:
            thread.join(10)
        assert all(order == list(range(50)) for order in seen.values())

    def test_a_sender_waits_for_a_reader_that_lags_and_loses_nothing(self, ends: tuple[Link, Link]) -> None:
        one, other = ends
        sent = 0

        def send() -> None:
            nonlocal sent
            for i in range(1000):
                one.send(Say("", (i,)), bytes(10_000))
                sent += 1

        thread = threading.Thread(target=send)
        thread.start()
        before = -1
        while sent != before:  # until it moves no more
            before = sent
            time.sleep(0.2)
        assert sent < 1000, "10 MB unread made nobody wait"
        assert [got(other).message.numbers[0] for _ in range(1000)] == list(range(1000))
        thread.join(10)

    def test_a_peer_that_takes_nothing_for_the_time_given_is_lost(self, ends: tuple[Link, Link]) -> None:
        one, _ = ends
        begun_s = time.monotonic()
        with pytest.raises(PeerLost, match=r"took nothing"):
            send_until_lost(one, 10_000, timeout_s=0.3)
        assert time.monotonic() - begun_s < 5
        with pytest.raises(PeerLost):
            one.receive(1)

    def test_nothing_within_the_time_given_is_none(self, ends: tuple[Link, Link]) -> None:
        begun_s = time.monotonic()
        assert ends[0].receive(0.1) is None
        assert 0.09 < time.monotonic() - begun_s < 2
        assert ends[0].receive(0) is None

    def test_what_was_sent_before_the_end_is_given_out_and_then_the_end(
        self, ends: tuple[Link, Link]
    ) -> None:
        one, other = ends
        one.send(Say("last"), bytes(3000))
        one.close()
        one.close()
        assert got(other).message == Say("last")
        with pytest.raises(PeerLost):
            other.receive(10)
        with pytest.raises(PeerLost):
            send_until_lost(other, 1, timeout_s=1)  # a system may take one more before it knows

    def test_whoever_waits_at_an_end_that_is_closed_wakes_up(self, ends: tuple[Link, Link]) -> None:
        one, _ = ends
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                one.receive()
            except PeerLost as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        one.close()
        thread.join(5)
        assert raised

    def test_a_waiting_reader_takes_no_time_of_the_processor(self, ends: tuple[Link, Link]) -> None:
        one, other = ends
        used: list[float] = []

        def wait() -> None:
            begun_s = time.thread_time()
            got(other)
            used.append(time.thread_time() - begun_s)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.4)
        one.send(Say("at last"))
        thread.join(5)
        assert used[0] < 0.02

    def test_too_many_buffers_are_refused_and_the_link_lives(self, ends: tuple[Link, Link]) -> None:
        one, other = ends
        with pytest.raises(TooLarge, match=f"at most .* in {MAX_BUFFERS}"):
            one.send(Say(""), *[b"x"] * (MAX_BUFFERS + 1))
        one.send(Say("still here"))
        assert got(other).message == Say("still here")


@pytest.mark.parametrize("name", NAMES)
class TestEveryTransportByName:
    def test_a_frame_over_the_limit_is_refused_and_the_link_lives(self, name: str) -> None:
        listener, one, other = joined(transport(name, max_frame_bytes=4096))
        with pytest.raises(TooLarge, match=r"at most 4096"):
            one.send(Say(""), bytes(5000))
        one.send(Say("fits"), bytes(4000))
        assert got(other).message == Say("fits")
        for each in (one, other, listener):
            each.close()

    def test_who_has_another_key_is_refused_and_the_listener_goes_on(self, name: str) -> None:
        made = transport(name)
        listener = made.listen(member(0), WIRE)
        links: list[Link] = []
        thread = threading.Thread(target=lambda: links.append(accepted(listener)))
        thread.start()
        for stranger in (member(1, bytes(32)), member(1, group="h"), member(1, size=3)):
            with pytest.raises(Unauthorized, match="same key"):
                made.connect(listener.address, stranger, WIRE)
        assert not links
        links.append(made.connect(listener.address, member(1), WIRE))
        thread.join(10)
        assert len(links) == 2
        for each in (*links, listener):
            each.close()

    def test_another_version_is_refused_by_its_number(self, name: str) -> None:
        made = transport(name)
        listener = made.listen(member(0), WIRE)
        thread = threading.Thread(target=lambda: listener.accept(0.5))
        thread.start()
        with pytest.raises(Incompatible, match="speaks test 3, this one 4; run the same release"):
            made.connect(listener.address, member(1), Wire("test", 4, Say | Order))
        thread.join(10)
        listener.close()

    def test_nobody_to_connect_to_is_a_lost_peer(self, name: str) -> None:
        made = transport(name)
        listener = made.listen(member(0), WIRE)
        listener.close()
        with pytest.raises(PeerLost):
            made.connect(listener.address, member(1), WIRE, timeout_s=2)
        with pytest.raises(PeerLost):
            listener.accept(1)

    def test_accepting_ends_after_the_time_given(self, name: str) -> None:
        listener = transport(name).listen(member(0), WIRE)
        assert listener.accept(0.1) is None
        listener.close()


class TestBetweenProcesses:
    def test_frames_longer_than_any_buffer_come_back_unchanged(self, peer: Peer) -> None:
        data = os.urandom(20 << 20)
        peer.link.send(Say("large", tuple(range(1000))), data, timeout_s=20)
        frame = got(peer.link)
        assert frame.message == Say("large", tuple(range(1000)))
        assert bytes(frame.buffers[0]) == data

    def test_a_flood_is_held_back_and_all_of_it_arrives(self, peer: Peer) -> None:
        peer.link.send(Order("flood"))
        time.sleep(0.3)
        assert [got(peer.link).message.numbers[0] for _ in range(2000)] == list(range(2000))

    def test_a_peer_that_is_killed_is_noticed_at_once(self, peer: Peer) -> None:
        peer.link.send(Say("are you there"))
        got(peer.link)
        timer = threading.Timer(0.2, peer.process.kill)
        timer.start()
        begun_s = time.monotonic()
        with pytest.raises(PeerLost):
            peer.link.receive(10)
        assert time.monotonic() - begun_s < 1.0
        peer.process.wait(10)

    def test_a_sender_that_waits_for_a_peer_that_is_killed_wakes_up(self, peer: Peer) -> None:
        peer.link.send(Order("sleep"))
        timer = threading.Timer(0.5, peer.process.kill)
        timer.start()
        begun_s = time.monotonic()
        with pytest.raises(PeerLost):
            send_until_lost(peer.link, 100_000, timeout_s=None)
        assert time.monotonic() - begun_s < 3.0

    def test_the_other_process_notices_that_this_end_is_gone(self, peer: Peer) -> None:
        peer.link.close()
        assert peer.process.wait(5) == 0


class Raw:
    """A plain TCP connection to a listener, for what no member would send."""

    def __init__(self) -> None:
        self.listener = transport("tcp", max_frame_bytes=4096).listen(member(0), WIRE)
        host, _, port = self.listener.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))


class TestTcpAgainstStrangers:
    def through(self, data: bytes) -> Link:
        """A link's end that gets these bytes behind a proper handshake."""
        from pentad.execution.transport import tcp

        listener, one, other = joined(transport("tcp", max_frame_bytes=4096))
        stream = other._stream  # type: ignore[attr-defined]
        assert isinstance(stream, tcp.SocketStream)
        stream.write([data], 1)
        self.others = (other, listener)
        return one

    def teardown_method(self) -> None:
        for each in getattr(self, "others", ()):
            each.close()

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            (struct.pack("<II", 5000, 0), BadFrame, "5000 bytes"),
            (struct.pack("<II", 2**32 - 1, 2**32 - 1), BadFrame, "at most"),
            (struct.pack("<II", 3, 1), BadFrame, "at most"),
            (struct.pack("<II", 8, 0) + bytes(24), BadFrame, "was changed"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", BadFrame, "at most"),
        ],
    )
    def test_garbage_ends_the_link(self, data: bytes, error: type[Exception], message: str) -> None:
        link = self.through(data)
        with pytest.raises(error, match=message):
            link.receive(5)
        with pytest.raises(PeerLost):
            link.receive(5)
        link.close()

    def test_a_frame_cut_short_is_a_lost_peer(self) -> None:
        link = self.through(struct.pack("<II", 100, 0) + bytes(50))
        self.others[0].close()
        with pytest.raises(PeerLost, match="within a frame"):
            link.receive(5)
        link.close()

    def test_a_frame_that_is_sent_twice_ends_the_link(self) -> None:
        listener, one, other = joined(transport("tcp"))
        stream: Any = other._stream  # type: ignore[attr-defined]
        written: list[bytes] = []
        write = stream.write

        def recording(pieces: list[bytes], timeout_s: float | None) -> None:
            written.append(b"".join(pieces))
            write(pieces, timeout_s)

        stream.write = recording
        other.send(Say("once"))
        write([written[0]], 1)
        assert got(one).message == Say("once")
        with pytest.raises(BadFrame, match="changed on its way"):
            one.receive(5)
        for each in (one, other, listener):
            each.close()

    def test_what_is_no_handshake_is_turned_away_and_the_listener_goes_on(self) -> None:
        raw = Raw()
        raw.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(200))
        links: list[Link] = []
        thread = threading.Thread(target=lambda: links.append(accepted(raw.listener)))
        thread.start()
        link = transport("tcp").connect(raw.listener.address, member(1), WIRE)
        thread.join(10)
        links[0].send(Say("welcome"))
        assert got(link).message == Say("welcome")
        for each in (link, *links, raw.listener, raw.socket):
            each.close()


class TestWire:
    @pytest.mark.parametrize(
        "data", [b"", b"\x00", b"\xc1", b"\x93\x01\xa1a\x90\x90", b"\x92\x07\xa1a", b"\x80", os.urandom(500)]
    )
    def test_refuses_what_is_no_message(self, data: bytes) -> None:
        with pytest.raises(NotOfThisWire, match="no message of test 3"):
            WIRE.decode(data)

    def test_refuses_a_known_message_with_a_wrong_field(self) -> None:
        with pytest.raises(NotOfThisWire, match="Expected `int`"):
            WIRE.decode(b"\x93\x01\xa1a\x91\xa1b")

    def test_gives_back_what_it_was_given(self) -> None:
        for message in (Say("ä", (1, -5)), Order("x")):
            assert WIRE.decode(WIRE.encode(message)) == message


def test_a_member_has_a_rank_within_its_group_and_a_whole_key() -> None:
    with pytest.raises(InvalidRequest, match="ranks are 0 to size - 1"):
        Member(group="g", rank=2, size=2, key=KEY)
    with pytest.raises(InvalidRequest, match="give 32 random ones"):
        Member(group="g", rank=0, size=2, key=b"short")
    assert "key" not in repr(member(0))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names without a folder are Linux's")
def test_shared_memory_needs_no_folder_that_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(prefix: str) -> str:
        raise FileNotFoundError(prefix)

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    listener, one, other = joined(transport("shared-memory"))
    assert listener.address.startswith("@pentad-")
    one.send(Say("there"))
    assert got(other).message == Say("there")
    for each in (one, other, listener):
        each.close()
