"""RemoteStarter: starts workers on the hosts of a cluster, and moves them off hosts that are drained."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pentad.errors import Unavailable
from pentad.execution.worker.interpreters import ChildProcess
from pentad.resource.ray_hosts.cluster import RayHosts

_log = logging.getLogger(__name__)
_WATCH_S: Final = 1.0
_WAIT_S: Final = 5.0
"""For the end of a process; a host that says nothing for so long is taken for dead, with what ran there."""
_KILLED: Final = -9


class RemoteStarter:
    """A Starter (execution/worker/interpreters.py) whose processes are on other machines.

    Args:
        hosts: in the order of preference.
        module: of ours, which the processes run.
        key: that all hosts have in a file; each link's is derived from it, so that none travels through Ray.
        key_file: where they have it.
        down: called once everything shall end.
    """

    def __init__(
        self, hosts: RayHosts, module: str, *, key: bytes, key_file: str, down: Callable[[], None]
    ) -> None:
        self._hosts = hosts
        self._module = module
        self._key = key
        self._key_file = key_file
        self._down = down
        self._children: list[RemoteProcess] = []
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="pentad-hosts", daemon=True).start()

    def secret(self, group: str) -> bytes:
        """See Starter."""
        return derived(self._key, group)

    def take(self) -> ChildProcess:
        """See Starter: a process on the first host that is there, is not drained, and runs least.

        Raises Unavailable where there is none.
        """
        joined = self._hosts.joined()
        able = [host for host in joined if not self._hosts.drained(host)]
        busy = [child.host for child in self._children if child.poll() is None]
        for host in sorted(able, key=busy.count):
            try:
                agent = self._hosts.agent(host)
            except Unavailable as error:
                _log.warning("host %s is passed over: %s", host, error)
                continue
            child = RemoteProcess(self._hosts, agent, host, self._module, self._key_file)
            self._children.append(child)
            _log.info("a process of %s starts on %s", self._module, host)
            return child
        raise Unavailable(
            f"none of the hosts {', '.join(self._hosts.hosts)} can be used: {len(joined)} are there, "
            f"{len(able)} of them not drained",
            hint="see pentad status; start a host with ray start, or take back a drain",
        )

    def _watch(self) -> None:
        """Ends what runs on drained hosts, so that its supervisor starts it elsewhere."""
        told = False
        while not self._closing.wait(_WATCH_S):
            try:
                for child in [child for child in self._children if child.returncode is None]:
                    if self._hosts.drained(child.host):
                        _log.warning("host %s is drained: what runs there goes on elsewhere", child.host)
                        child.kill()
                if self._hosts.down and not told:
                    told = True
                    self._down()
            except Exception as error:  # Ray raises many kinds; the next look may succeed
                _log.warning("the cluster does not answer: %s", type(error).__name__)

    def close(self) -> None:
        """See Starter: nothing is started ahead."""

    def end(self) -> None:
        """Ends all processes."""
        self._closing.set()
        for child in self._children:
            child.kill()


class RemoteProcess:
    """A ChildProcess on another machine."""

    def __init__(self, hosts: RayHosts, agent: Any, host: str, module: str, key_file: str) -> None:
        self.host = host
        self.pid = 0
        self.returncode: int | None = None
        self._hosts = hosts
        self._agent = agent
        self._module = module
        self._key_file = key_file
        self._number: int | None = None

    def say(self, config: dict[str, Any]) -> None:
        """See ChildProcess: the process starts now. It has the key, and its own copy of the model."""
        told = {name: value for name, value in config.items() if name != "key"}
        line = json.dumps(told | {"key_file": self._key_file, "stored": True}).encode() + b"\n"
        try:
            self._number, self.pid = self._hosts.answer(self._agent.start.remote(self._module, line))
        except Unavailable:
            self.returncode = _KILLED

    def poll(self) -> int | None:
        """See ChildProcess."""
        if self.returncode is None and self._number is not None:
            try:
                self.returncode = self._hosts.answer(self._agent.poll.remote(self._number), _WAIT_S)
            except Unavailable:
                self.returncode = _KILLED
        return self.returncode

    def kill(self) -> None:
        """See ChildProcess."""
        if self.returncode is not None:
            return
        if self._number is not None:
            try:
                self._hosts.answer(self._agent.kill.remote(self._number), _WAIT_S)
            except Unavailable as error:
                _log.warning("host %s: %s", self.host, error)
        self.returncode = _KILLED

    def wait(self, timeout: float | None = None) -> int:
        """See ChildProcess."""
        until_s = time.monotonic() + (_WAIT_S if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > until_s:
                raise subprocess.TimeoutExpired(self._module, timeout or _WAIT_S)
            time.sleep(0.05)
        return status

    def release(self) -> None:
        """See ChildProcess."""


def derived(key: bytes, group: str) -> bytes:
    """The key of one link from that of the cluster."""
    return hmac.new(key, b"pentad worker " + group.encode(), hashlib.sha256).digest()
