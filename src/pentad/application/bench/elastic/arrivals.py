"""Arrivals: which task comes when, the same for every policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.agent.evaluation.workload import Task, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskArrival:
    """A task that comes at an instant."""

    number: int
    at_s: float
    """From the beginning of its round."""
    task: Task


def arrivals_of(workload: Workload, *, per_minute: float, minutes: float, seed: int) -> list[TaskArrival]:
    """Poisson arrivals; classes by weight, each class's tasks in an order of its own, over and over."""
    draw = random.Random(seed)
    decks = {
        one.name: [task for task in workload.tasks if task.slo_class == one.name] for one in workload.classes
    }
    for deck in decks.values():
        draw.shuffle(deck)
    names = [one.name for one in workload.classes]
    weights = [one.weight for one in workload.classes]
    drawn = dict.fromkeys(names, 0)
    found: list[TaskArrival] = []
    at_s = draw.expovariate(per_minute / 60.0)
    while at_s < 60.0 * minutes:
        (name,) = draw.choices(names, weights)
        task = decks[name][drawn[name] % len(decks[name])]
        drawn[name] += 1
        found.append(TaskArrival(number=len(found), at_s=at_s, task=task))
        at_s += draw.expovariate(per_minute / 60.0)
    return found


def rounds_of(arrivals: Sequence[TaskArrival], *, minutes: float, rounds: int) -> list[list[TaskArrival]]:
    """The arrivals in so many equal parts of time, each from its own beginning."""
    part_s = 60.0 * minutes / rounds
    parts: list[list[TaskArrival]] = [[] for _ in range(rounds)]
    for one in arrivals:
        place = min(rounds - 1, int(one.at_s / part_s))
        parts[place].append(TaskArrival(number=one.number, at_s=one.at_s - place * part_s, task=one.task))
    return parts
