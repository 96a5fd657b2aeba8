"""What this machine says of itself, and what plain reads, writes and sockets show of it."""

from __future__ import annotations

import os
import pathlib
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil

from pentad.execution.device import MemoryTier

_ISA = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "bf16",
    "i8mm",
    "sve",
)
"""Instruction set extensions that matter to matrix products, as Linux names them."""

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
_CGROUP_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def load_average() -> float:
    """Processes that wanted to run in the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def isa() -> tuple[str, ...]:
    """Extensions of the instruction set; empty where the system does not tell."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            present = set(value.split())
            return tuple(name for name in _ISA if name in present)
    return ()


def host_name() -> str:
    """A name for the profile: the machine's, or its architecture where it has none."""
    return platform.node() or platform.machine()


def memory_bytes() -> int:
    """Main memory that this process may use: installed, or less under a control group's limit."""
    installed = int(psutil.virtual_memory().total)
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return installed
    return min(installed, int(limit)) if limit.isdigit() else installed


def cache_bytes() -> list[tuple[str, int]]:
    """(name, size) of the data caches of one core, nearest first; empty where the system does not tell."""
    found: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index[0-9]*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            level, size = (index / "level").read_text().strip(), (index / "size").read_text().strip()
        except OSError:
            continue
        if size[:-1].isdigit() and size[-1] in _UNITS:
            found[f"l{level}"] = int(size[:-1]) * _UNITS[size[-1]]
    return sorted(found.items())


def numpy_read_bytes_per_s(working_set_bytes: int) -> float:
    """Read bandwidth by a dot product of the set's two halves: where no runner's probe is installed."""
    halves = np.ones((2, max(1, working_set_bytes // 8)), dtype=np.float32)
    left, right = halves
    np.dot(left, right)
    rates = []
    for _ in range(5):
        passes, begin = 0, time.perf_counter()
        while passes == 0 or time.perf_counter() - begin < 0.02:
            np.dot(left, right)
            passes += 1
        rates.append(halves.nbytes * passes / (time.perf_counter() - begin))
    return sorted(rates)[len(rates) // 2]


def numpy_flops_per_s(size: int = 768) -> float:
    """Rate of a float32 product of two square matrices: what programs get without kernels of their own."""
    square = np.ones((size, size), dtype=np.float32)
    np.dot(square, square)
    seconds = sorted(_timed(lambda: np.dot(square, square)) for _ in range(5))
    return float(2 * size**3 / seconds[2])


def disk(folder: pathlib.Path, size_bytes: int) -> MemoryTier:
    """The disk that holds `folder`: written with fsync, read back past the page cache where possible.

    Raises OSError when the folder cannot be written or is full.
    """
    chunk = np.random.default_rng(0).bytes(1 << 20)
    count = max(1, size_bytes >> 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="pentad-profile-") as file:
        begin = time.perf_counter()
        for _ in range(count):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        write_s = time.perf_counter() - begin
        advise = getattr(os, "posix_fadvise", None)
        if advise is not None:
            advise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begin = time.perf_counter()
        with open(file.name, "rb", buffering=0) as reader:
            while reader.read(1 << 20):
                pass
        read_s = time.perf_counter() - begin
    total = count << 20
    return MemoryTier(
        name="disk",
        capacity_bytes=int(psutil.disk_usage(str(folder)).free),
        read_bytes_per_s=total / read_s,
        write_bytes_per_s=total / write_s,
    )


def loopback(rounds: int = 300, size_bytes: int = 64 << 20) -> dict[str, float]:
    """One-way latency and bandwidth of a TCP connection of this machine to itself.

    Raises OSError where loopback connections are not possible.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server, rounds, size_bytes), daemon=True)
        echo.start()
        with socket.create_connection(server.getsockname(), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trips = sorted(_timed(lambda: _round_trip(connection)) for _ in range(rounds))
            data = bytes(1 << 20)

            def send() -> None:
                for _ in range(size_bytes >> 20):
                    connection.sendall(data)
                connection.recv(1)

            seconds = _timed(send)
        echo.join(timeout=30)
    return {
        "loopback_latency_s": trips[len(trips) // 2] / 2,
        "loopback_bytes_per_s": (size_bytes >> 20 << 20) / seconds,
    }


def _echo(server: socket.socket, rounds: int, size_bytes: int) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            connection.sendall(connection.recv(1))
        left, buffer = size_bytes >> 20 << 20, bytearray(1 << 20)
        while left > 0:
            received = connection.recv_into(buffer)
            if not received:
                return
            left -= received
        connection.sendall(b"!")


def _round_trip(connection: socket.socket) -> None:
    connection.sendall(b"?")
    connection.recv(1)


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
