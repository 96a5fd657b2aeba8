"""Streams of requests on devices that compute one batch at a time: who is next, and who must give way."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pentad.resource.scaling.sessions import Session


@dataclass(slots=True)
class _Device:
    batch: list[float] = field(default_factory=list)
    """Arrivals of the requests that are computed; empty: it is idle."""
    stream: str = ""
    end_s: float = 0.0
    turn: int = 0


def goodput(
    streams: Sequence[Session],
    devices: int,
    arrivals: Mapping[str, Sequence[float]],
    *,
    preempt: float | None = 3.03,
) -> int:
    """Requests that are answered in time by devices which all have all models.

    An idle device takes the largest batch that any stream can still have in time. Where none is idle, a batch
    that is `preempt` times as large as the smallest that is computed takes its place; what was computed of
    that is lost and its requests wait again. Requests that cannot be in time any more are dropped.

    Args:
        streams: with their batch times and deadlines.
        devices: all alike.
        arrivals: instants by model, ascending.
        preempt: above 1; None: no batch is stopped.

    Source: SHEPHERD (Zhang et al., NSDI'23, section 5, FLEX).
    """
    queues: dict[str, deque[float]] = {stream.model: deque() for stream in streams}
    by_model = {stream.model: stream for stream in streams}
    coming = sorted((at, model) for model in queues for at in arrivals.get(model, ()))
    pool = [_Device() for _ in range(devices)]
    ends: list[tuple[float, int, int]] = []
    met = place = 0
    while place < len(coming) or ends:
        now_s = min(
            coming[place][0] if place < len(coming) else float("inf"), ends[0][0] if ends else float("inf")
        )
        while ends and ends[0][0] <= now_s:
            _, at, turn = heapq.heappop(ends)
            if pool[at].turn == turn and pool[at].batch:
                met += len(pool[at].batch)
                pool[at].batch = []
        while place < len(coming) and coming[place][0] <= now_s:
            queues[coming[place][1]].append(coming[place][0])
            place += 1
        while True:
            model, size = _largest(by_model, queues, now_s)
            if not size:
                break
            at = min(range(devices), key=lambda i: len(pool[i].batch))
            device = pool[at]
            if device.batch:
                if preempt is None or size < preempt * len(device.batch):
                    break
                queues[device.stream].extendleft(reversed(device.batch))
            device.batch = [queues[model].popleft() for _ in range(size)]
            device.stream, device.turn = model, device.turn + 1
            device.end_s = now_s + by_model[model].batch_s(size)
            heapq.heappush(ends, (device.end_s, at, device.turn))
    return met


def _largest(
    streams: Mapping[str, Session], queues: Mapping[str, deque[float]], now_s: float
) -> tuple[str, int]:
    """The stream that can have the largest batch in time, and its size; drops what is too late."""
    best, most = "", 0
    for model, queue in queues.items():
        stream = streams[model]
        while queue and queue[0] + stream.deadline_s < now_s + stream.batch_s(1) - 1e-12:
            queue.popleft()
        if queue:
            size = min(len(queue), max(1, stream.largest(queue[0] + stream.deadline_s - now_s)))
            if size > most:
                best, most = model, size
    return best, most
