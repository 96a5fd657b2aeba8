"""WorkerProcess: one life of a worker, from its start to its end, and the link to it."""

from __future__ import annotations

import contextlib
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from pentad.errors import BackendFailed, TooLarge
from pentad.execution.transport.base import Link, Member, PeerLost, Received, Transport
from pentad.execution.worker.interpreters import Starter
from pentad.execution.worker.messages import WIRE, refusal_of

_CONNECT_S: Final = 60.0
"""From the start of the process until it connects: the interpreter and the imports."""


class WorkerProcess:
    """A running worker. Its standard input is a lifeline: it ends with this process, and the worker with it.

    Args:
        starter: starts the worker, which reads one line of JSON from its standard input: `address`,
            `key`, `transport` and what `config` adds.
        transport: of the link.
        transport_choice: the same, as the worker reads it.
        config: for the worker.

    Raises:
        BackendFailed: the process ended, or did not connect.
    """

    def __init__(
        self,
        starter: Starter,
        transport: Transport,
        transport_choice: str,
        config: Mapping[str, Any],
    ) -> None:
        self.started_s = time.monotonic()
        group = secrets.token_hex(8)
        member = Member(group=group, rank=0, size=2, key=starter.secret(group))
        listener = transport.listen(member, WIRE)
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._returned: deque[Any] = deque()
        """Refusals of what is too large to be sent; taken with the worker's next sign of life."""
        self.process = starter.take()
        try:
            self.process.say(
                {
                    **config,
                    "address": listener.address,
                    "transport": transport_choice,
                    "group": member.group,
                    "key": member.key.hex(),
                }
            )
            self._link = self._connected(listener.accept)
        except BaseException:
            self.kill()
            raise
        finally:
            listener.close()
        self._sender = threading.Thread(target=self._send_all, name="pentad-worker-out", daemon=True)
        self._sender.start()

    def _connected(self, accept: Any) -> Link:
        until_s = time.monotonic() + _CONNECT_S
        while time.monotonic() < until_s:
            link: Link | None = accept(0.2)
            if link is not None:
                return link
            if self.process.poll() is not None:
                raise BackendFailed(f"the engine's process {self.end()} before it connected")
        raise BackendFailed(f"the engine's process did not connect within {_CONNECT_S:g} s")

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, message: Any) -> None:
        """Puts a message on its way; never waits. Where the worker is gone it is dropped."""
        self._outbox.put(message)

    def receive(self, timeout_s: float) -> Received | None:
        """See Link. Raises PeerLost, BadFrame."""
        if self._returned:
            return Received(self._returned.popleft())
        return self._link.receive(timeout_s)

    def kill(self) -> str:
        """Ends the process whatever it does, and gives everything back. Says how it ended."""
        self.process.kill()
        self.process.wait()
        self.process.release()
        self._outbox.put(None)
        if hasattr(self, "_link"):
            self._link.close()
        return self.end()

    def join(self, timeout_s: float) -> bool:
        """Whether the process ends by itself within that time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> str:
        """How the process ended, in words."""
        status = self.process.poll()
        if status is None:
            return "still runs"
        if status >= 0:
            return f"ended with status {status}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"

    def _send_all(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._link.send(message)
            except PeerLost:
                return
            except TooLarge as error:
                if (refusal := refusal_of(message, error)) is not None:
                    self._returned.append(refusal)
