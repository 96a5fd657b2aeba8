"""Where workers start on a cluster, and when they move. With Ray itself: tests/slow/test_ray_cluster.py."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pentad.errors import MissingExtra, Unavailable
from pentad.resource.ray_hosts.cluster import RayHosts
from pentad.resource.ray_hosts.starter import RemoteProcess, RemoteStarter, derived

KEY = bytes(range(32))


class Call:
    """A method of an agent, called as Ray calls it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class ScriptedAgent:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ended: dict[int, int] = {}
        self.gone = False
        self.start, self.poll, self.kill = Call(self._start), Call(self._poll), Call(self._kill)

    def _start(self, module: str, line: bytes) -> tuple[int, int]:
        self.lines.append(line)
        return len(self.lines) - 1, 1000 + len(self.lines)

    def _poll(self, number: int) -> int | None:
        return self.ended.get(number)

    def _kill(self, number: int) -> None:
        self.ended[number] = -9


class ScriptedHosts:
    """What RayHosts says, without Ray."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.away: set[str] = set()
        self.free: set[str] = set()
        self.agents = {host: ScriptedAgent() for host in hosts}
        self.down = False

    def joined(self) -> dict[str, str]:
        return {host: "10.0.0.1" for host in self.hosts if host not in self.away}

    def drained(self, host: str) -> bool:
        return host in self.free

    def agent(self, host: str) -> ScriptedAgent:
        if self.agents[host].gone:
            raise Unavailable("no answer")
        return self.agents[host]

    def answer(self, reference: Any, wait_s: float = 0.0) -> Any:
        return reference


@pytest.fixture
def hosts() -> ScriptedHosts:
    return ScriptedHosts("a", "b")


@pytest.fixture
def starter(hosts: ScriptedHosts) -> Iterator[RemoteStarter]:
    made = RemoteStarter(hosts, "m", key=KEY, key_file="/k", down=lambda: None)  # type: ignore[arg-type]
    yield made
    made.end()


def taken(starter: RemoteStarter) -> RemoteProcess:
    child = starter.take()
    assert isinstance(child, RemoteProcess)
    child.say({"group": "g", "key": "secret"})
    return child


def test_the_first_host_of_the_plan_is_taken_and_then_the_least_busy(starter: RemoteStarter) -> None:
    assert [taken(starter).host for _ in range(3)] == ["a", "b", "a"]


def test_hosts_that_are_away_drained_or_silent_are_passed_over(
    hosts: ScriptedHosts, starter: RemoteStarter
) -> None:
    hosts.away.add("a")
    assert taken(starter).host == "b"
    hosts.away.clear()
    hosts.agents["a"].gone = True
    assert taken(starter).host == "b"
    hosts.free.add("b")
    with pytest.raises(Unavailable, match="2 are there, 1 of them not drained") as failed:
        starter.take()
    assert "pentad status" in str(failed.value.hint)


def test_no_key_travels_through_ray(hosts: ScriptedHosts, starter: RemoteStarter) -> None:
    taken(starter)
    line = hosts.agents["a"].lines[0]
    assert b"secret" not in line
    assert b'"key_file": "/k"' in line
    assert starter.secret("g") == derived(KEY, "g") != derived(KEY, "h")


def test_what_runs_on_a_drained_host_is_ended(hosts: ScriptedHosts, starter: RemoteStarter) -> None:
    child = taken(starter)
    hosts.free.add("a")
    until_s = time.monotonic() + 20
    while child.returncode is None and time.monotonic() < until_s:
        time.sleep(0.02)
    assert child.poll() == -9
    assert taken(starter).host == "b"


def test_a_process_is_waited_for_and_counts_as_dead_where_its_host_is_gone(
    hosts: ScriptedHosts, starter: RemoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = taken(starter)
    assert child.pid == 1001
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)

    def gone(*_: Any) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(hosts, "answer", gone)
    assert child.wait(1) == -9


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtra, match="Ray") as failed:
        RayHosts(["a"], "127.0.0.1:1")
    assert "pentad[ray]" in str(failed.value.hint)
