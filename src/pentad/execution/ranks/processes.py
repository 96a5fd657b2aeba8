"""The processes of a group's ranks: started here, or awaited from other machines."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pentad.choice import Choice, build
from pentad.errors import BackendFailed
from pentad.execution.ranks.host import MEET_S
from pentad.execution.ranks.messages import WIRE, Hello, Weight
from pentad.execution.ranks.shards import ShardSource
from pentad.execution.transport.base import KEY_BYTES, Link, Listener, Member, PeerLost, Transport

_PART_BYTES: Final = 16 << 20
"""Of a tensor in one frame."""
_COMMAND: Final = (sys.executable, "-m", "pentad.execution.ranks.host")


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


class Company:
    """The other ranks, as rank 0 sees them: links to all, and the processes that it started."""

    def __init__(
        self, meeting: Meeting, size: int, *, listening: Callable[[str], None] | None = None
    ) -> None:
        """`listening` is told where ranks of other machines have to connect.

        Raises BackendFailed where not all of them come.
        """
        key = meeting.key or secrets.token_bytes(KEY_BYTES)
        group = meeting.group if meeting.key else secrets.token_hex(8)
        transport: Transport = build("transport", meeting.transport)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.links: dict[int, Link] = {}
        self.addresses: tuple[str, ...] = ()
        if size == 1:
            return
        listener = transport.listen(Member(group=group, rank=0, size=size, key=key), WIRE)
        try:
            if listening is not None:
                listening(listener.address)
            if meeting.key is None:
                for rank in range(1, size):
                    self._start(
                        {
                            "transport": str(meeting.transport),
                            "address": listener.address,
                            "group": group,
                            "rank": rank,
                            "size": size,
                            "key": key.hex(),
                        }
                    )
            self._meet(listener, size, meeting.wait_s)
        except BaseException:
            self.close()
            raise
        finally:
            listener.close()

    def _start(self, config: dict[str, object]) -> None:
        process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )
        self.processes.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode() + b"\n")
        process.stdin.flush()

    def _meet(self, listener: Listener, size: int, wait_s: float) -> None:
        until_s = time.monotonic() + wait_s
        while len(self.links) < size - 1:
            link = listener.accept(0.2)
            if link is not None:
                self.links[link.peer] = link
            missing = sorted(set(range(1, size)) - set(self.links))
            if missing and (any(p.poll() is not None for p in self.processes) or time.monotonic() > until_s):
                raise BackendFailed(
                    f"rank {missing[0]} of {size} did not come within {wait_s:g} s",
                    hint="start it with pentad rank, or see what its process wrote",
                )
        told = {rank: link.receive(wait_s) for rank, link in self.links.items()}
        found = {
            rank: got.message.address for rank, got in told.items() if got and isinstance(got.message, Hello)
        }
        if len(found) < size - 1:
            raise PeerLost("a rank did not say where it listens")
        self.addresses = ("", *(found[rank] for rank in range(1, size)))

    def alive(self) -> bool:
        """Whether no process that was started has ended."""
        return all(process.poll() is None for process in self.processes)

    def close(self) -> None:
        """Ends links and processes."""
        for link in self.links.values():
            link.close()
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()


def send_weights(link: Link, source: ShardSource) -> int:
    """A rank's tensors, in parts; how many bytes they have."""
    extras = frozenset(source.extras())
    sent = 0
    for name in _in_order(source.names(), extras):
        stored = source.tensor(name).held()
        data = memoryview(stored.data.reshape(-1))  # type: ignore[arg-type]
        starts = range(0, max(len(data), 1), _PART_BYTES)
        for start in starts:
            part = Weight(
                name=name,
                format=stored.format,
                shape=stored.shape,
                last=start == starts[-1],
                extra=name in extras,
            )
            link.send(part, data[start : start + _PART_BYTES])
        sent += len(data)
    return sent


def _in_order(names: Iterable[str], extras: Iterable[str]) -> list[str]:
    return [*names, *sorted(extras)]
