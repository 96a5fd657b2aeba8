"""Devices that compute one batch at a time in duty cycles, as a load meets them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile

from pentad.resource.scaling.sessions import DutyCycle


def answered_in_time(cycle: DutyCycle, arrivals: Mapping[str, Sequence[float]]) -> int:
    """Requests that one device answers before their deadlines.

    The device takes its sessions in turn and computes of each what has gathered, up to its batch, without
    waiting for a full one. Requests for which such a batch would be too late are dropped before.

    Args:
        cycle: of the device.
        arrivals: instants by model, ascending.
    """
    queues = {load.session.model: deque(arrivals.get(load.session.model, ())) for load in cycle.loads}
    now_s, met = 0.0, 0
    while any(queues.values()):
        idle = True
        for load in cycle.loads:
            session, queue = load.session, queues[load.session.model]
            gathered = takewhile(now_s.__ge__, queue)
            size = min(load.batch, sum(1 for _ in gathered))
            while (
                queue and queue[0] <= now_s and queue[0] + session.deadline_s < now_s + session.batch_s(size)
            ):
                queue.popleft()
            batch: list[float] = []
            while queue and queue[0] <= now_s and len(batch) < size:
                batch.append(queue.popleft())
            if batch:
                now_s += session.batch_s(len(batch))
                met += sum(now_s <= arrived + session.deadline_s + 1e-9 for arrived in batch)
                idle = False
        if idle:
            now_s = max(now_s, min((queue[0] for queue in queues.values() if queue), default=now_s))
    return met
