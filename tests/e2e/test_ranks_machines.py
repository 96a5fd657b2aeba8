"""Ranks on machines of their own: network namespaces that a shaped link joins; and strangers on that link."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pentad.choice import Choice
from pentad.errors import Unauthorized
from pentad.execution.ranks.company import Meeting
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.messages import WIRE
from pentad.execution.ranks.runner import RankedRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.transport.base import Member
from pentad.execution.transport.tcp import Tcp
from ragged_batches import whole
from rank_support import KEY, random_weights, tiny_spec

SHAPES = ("netem delay 5ms rate 100mbit", "tbf rate 100mbit burst 32kbit latency 400ms")
HERE, THERE = "10.213.9.1", "10.213.9.2"
TEXT = np.random.default_rng(1).integers(0, 160, 40).tolist()


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def shaped(device: str, kind: str) -> bool:
    """Whether the device now sends as slowly as asked."""
    add = ["tc", "qdisc", "add", "dev", device, "root", *kind.split()]
    return subprocess.run(add, capture_output=True, check=False).returncode == 0


@pytest.fixture
def far() -> Iterator[str]:
    """A namespace behind a link of 100 Mbit/s, with 5 ms of delay where the system has netem."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    name, near, end = f"pentad-rank-{os.getpid()}", f"pr{os.getpid()}", f"pq{os.getpid()}"
    if (made := ip("netns", "add", name)).returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        for step in (
            f"link add {near} type veth peer name {end} netns {name}",
            f"addr add {HERE}/24 dev {near}",
            f"-n {name} addr add {THERE}/24 dev {end}",
            f"-n {name} link set lo up",
            f"-n {name} link set {end} up",
            f"link set {near} up",
        ):
            if (done := ip(*step.split())).returncode:
                pytest.skip(f"the namespaces cannot be joined here: ip {step}: {done.stderr.strip()}")
        if shutil.which("tc") is None or not any(shaped(near, kind) for kind in SHAPES):
            pytest.skip("the link cannot be shaped here: tc has neither netem nor tbf")
        yield name
    finally:
        ip("netns", "del", name)
        ip("link", "del", near)


def start_far(namespace: str, address: str, rank: int, size: int) -> subprocess.Popen[bytes]:
    """A rank's process in the namespace."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "pentad.execution.ranks.host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    config = {"transport": f"tcp:host={THERE}", "address": address, "group": "pentad"}
    config |= {"rank": rank, "size": size, "key": KEY.hex()}  # type: ignore[dict-item]
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pp=2", "tp=2"])
def test_a_rank_behind_a_shaped_link_gives_the_same_logits(far: str, layout: str) -> None:
    spec = tiny_spec(layers=2)
    one = TorchRunner.load(spec, random_weights(spec), num_blocks=64, dtype="float32", threads=1)
    started: list[subprocess.Popen[bytes]] = []

    def meet(address: str) -> None:
        assert address.startswith(HERE)
        intrude(address)
        started.append(start_far(far, address, 1, 2))

    try:
        many = RankedRunner(
            spec,
            random_weights(spec),
            Layout.parse(layout, spec.layers),
            meeting=Meeting(transport=Choice(name="tcp", options={"host": HERE}), key=KEY, wait_s=120),
            num_blocks=64,
            dtype="float32",
            threads=1,
            listening=meet,
        )
        np.testing.assert_allclose(many.logits(whole(TEXT)), one.logits(whole(TEXT)), atol=1e-4, rtol=0)
        many.close()
        assert started[0].wait(30) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def intrude(address: str) -> None:
    """Somebody who is not of the group: talks HTTP, hangs up; the listener goes on waiting for its ranks."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")


def test_a_rank_with_another_key_is_turned_away() -> None:
    import threading

    listener = Tcp().listen(Member(group="pentad", rank=0, size=2, key=KEY), WIRE)
    accepting = threading.Thread(target=listener.accept, args=(3.0,))
    accepting.start()
    try:
        with pytest.raises(Unauthorized):
            Tcp().connect(
                listener.address, Member(group="pentad", rank=1, size=2, key=bytes(32)), WIRE, timeout_s=3
            )
    finally:
        accepting.join(10)
        listener.close()
