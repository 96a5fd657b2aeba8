"""Company: the other ranks as rank 0 sees them, which come, go and come again."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from pentad.choice import Choice, build
from pentad.errors import BackendFailed, PentadError
from pentad.execution.ranks.host import MEET_S
from pentad.execution.ranks.messages import WIRE, Hello
from pentad.execution.transport.base import KEY_BYTES, Link, Listener, Member, PeerLost, Transport
from pentad.execution.worker.restarts import Restarts

_log = logging.getLogger(__name__)
_COMMAND: Final = (sys.executable, "-m", "pentad.execution.ranks.host")
_HELLO_S: Final = 5.0
"""From a handshake to the first message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """How the ranks of a group find each other.

    With a key the ranks but 0 are started by people, `pentad rank`, wherever they are; without, by rank 0
    on its own machine, with a key that nobody else ever sees.
    """

    transport: Choice = field(default_factory=lambda: Choice(name="shared-memory"))
    key: bytes | None = field(default=None, repr=False)
    group: str = "pentad"
    wait_s: float = MEET_S
    """For all of them to come the first time."""
    back_s: float = 5.0
    """For one that was lost to come back, before the others go on without it."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A process that has come."""

    link: Link
    address: str
    """Where others reach it."""
    holds: bytes
    """The part of a model that it has loaded."""


class Company:
    """Who is there, by seat, from the first meeting to `close`.

    A seat whose process keeps dying is let in again later and later (worker/restarts.py).
    """

    def __init__(
        self, meeting: Meeting, size: int, *, listening: Callable[[str], None] | None = None
    ) -> None:
        """Starts the processes, where no key says that people do. `listening` is told where to connect."""
        self._meeting = meeting
        key = meeting.key or secrets.token_bytes(KEY_BYTES)
        self._member = Member(
            group=meeting.group if meeting.key else secrets.token_hex(8), rank=0, size=size, key=key
        )
        self.seats = range(1, size)
        self.guests: dict[int, Guest] = {}
        """Those of the group as it is now."""
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._arrived: dict[int, Guest] = {}
        """Those who came since it was formed."""
        self._change = threading.Condition()
        self._restarts = {seat: Restarts() for seat in self.seats}
        self._came_s = dict.fromkeys(self.seats, 0.0)
        self._next_s = dict.fromkeys(self.seats, 0.0)
        """Before which a seat is not let in."""
        self._listener: Listener | None = None
        if size == 1:
            return
        transport: Transport = build("transport", meeting.transport)
        self._listener = transport.listen(self._member, WIRE)
        threading.Thread(target=self._welcome, name="pentad-ranks", daemon=True).start()
        if listening is not None:
            listening(self._listener.address)
        try:
            self._start(self.seats)
        except BaseException:
            self.close()
            raise

    def meet(self) -> None:
        """Waits for everybody. Raises BackendFailed where one does not come."""
        missing = self._gathered(self.seats, self._meeting.wait_s)
        if missing:
            raise BackendFailed(
                f"rank {missing[0]} of {len(self.seats) + 1} did not come within {self._meeting.wait_s:g} s",
                hint="start it with pentad rank, or see what its process wrote",
            )

    def meet_again(self) -> dict[int, str]:
        """Lets those come again who can, once all links are ended; the seats that stay away, and why."""
        self.part()
        away: dict[int, str] = {}
        wait_s = MEET_S if self.processes else self._meeting.back_s
        until_s = time.monotonic() + wait_s
        while True:
            for seat in [seat for seat in self.seats if seat not in away and self._ended(seat)]:
                if self._mourned(seat) > 0:
                    away[seat] = f"died {self._restarts[seat].in_a_row} times in a row"
                else:
                    self._start([seat])
            missing = self._gathered([seat for seat in self.seats if seat not in away], 0.2)
            if not missing:
                return away
            if time.monotonic() > until_s:
                return away | dict.fromkeys(missing, f"did not come back within {wait_s:g} s")

    def _mourned(self, seat: int) -> float:
        """Notes that a process died; seconds until it may be there again."""
        now_s = time.monotonic()
        pause_s = self._restarts[seat].died(now_s - self._came_s[seat])
        self._next_s[seat] = now_s + pause_s
        return pause_s

    def back(self) -> list[int]:
        """Seats that have come back to a group that went on without them, and may be let in."""
        if len(self.guests) == len(self.seats):
            return []
        now_s = time.monotonic()
        due = [seat for seat in self.seats if seat not in self.guests and self._next_s[seat] <= now_s]
        self._start([seat for seat in due if self._ended(seat)])
        with self._change:
            return [seat for seat in due if seat in self._arrived]

    def part(self) -> None:
        """Ends the links of the group; who is alive comes again."""
        for guest in self.guests.values():
            guest.link.close()
        self.guests = {}

    def close(self) -> None:
        """Ends links and processes."""
        if self._listener is not None:
            self._listener.close()
        self.part()
        with self._change:
            arrived, self._arrived = self._arrived, {}
        for guest in arrived.values():
            guest.link.close()
        for process in self.processes.values():
            _end(process)

    def _ended(self, seat: int) -> bool:
        process = self.processes.get(seat)
        return process is not None and process.poll() is not None

    def _gathered(self, wanted: Collection[int], wait_s: float) -> list[int]:
        """Takes those who have come into the group; who has not in time, or before a process ended."""
        until_s = time.monotonic() + wait_s
        with self._change:
            while missing := [s for s in wanted if s not in self._arrived and s not in self.guests]:
                if time.monotonic() > until_s or any(map(self._ended, missing)):
                    break
                self._change.wait(0.1)
            for seat in wanted:
                if (guest := self._arrived.pop(seat, None)) is not None:
                    self.guests[seat] = guest
                    self._came_s[seat] = time.monotonic()
        return [seat for seat in wanted if seat not in self.guests]

    def _welcome(self) -> None:
        """Takes whoever comes, until the listener is closed."""
        assert self._listener is not None
        with contextlib.suppress(PeerLost):
            while True:
                link = self._listener.accept(None)
                if link is None:
                    continue
                try:
                    told = link.receive(_HELLO_S)
                except PentadError as error:
                    _log.warning("seat %d came and went: %s", link.peer, error)
                    continue
                if told is None or not isinstance(told.message, Hello):
                    link.close()
                    continue
                with self._change:
                    before = self._arrived.get(link.peer)
                    self._arrived[link.peer] = Guest(link, told.message.address, told.message.holds)
                    self._change.notify_all()
                if before is not None:
                    before.link.close()

    def _start(self, seats: Collection[int]) -> None:
        if self._meeting.key is not None:
            return
        assert self._listener is not None
        for seat in seats:
            if (before := self.processes.pop(seat, None)) is not None:
                _end(before)
            process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
            )
            self.processes[seat] = process
            config = {
                "transport": str(self._meeting.transport),
                "address": self._listener.address,
                "group": self._member.group,
                "rank": seat,
                "size": self._member.size,
                "key": self._member.key.hex(),
            }
            assert process.stdin is not None
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
