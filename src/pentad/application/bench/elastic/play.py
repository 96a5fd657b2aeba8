"""Plays a workload: the same arrivals for every policy, in rounds that take turns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pentad.agent.evaluation.workload import Task, Workload
from pentad.application.bench.elastic.arrivals import TaskArrival, arrivals_of, rounds_of
from pentad.application.bench.elastic.contestant import Contestant
from pentad.application.bench.elastic.run_line import RunLine
from pentad.application.bench.elastic.score import ratio, score
from pentad.ranges import in_range

DRAIN_S: Final = 60.0
"""How long runs of a class without a deadline may go on behind the last arrival of a round."""
_AT_ONCE: Final = 8
Told = Callable[[RunLine], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played."""

    loads: tuple[float, ...]
    """Arrivals, over the capacity."""
    minutes: float
    """Of arrivals, for each policy and load."""
    rounds: int = 2
    """Parts of these minutes; policies take turns with each."""
    capacity_per_minute: float | None = None
    """None: measured with the first policy."""
    capacity_runs: int = 16
    """Runs that it is measured by."""
    seed: int = 0
    feedback: float = 0.0
    """Share of ended runs, 0 to 1, whose verdict is told to the policy, as a user would."""

    def __post_init__(self) -> None:
        for load in self.loads:
            in_range("load", load, above=0, most=100)
        in_range("minutes", self.minutes, above=0, most=1440)
        in_range("rounds", self.rounds, least=1)
        in_range("capacity", self.capacity_per_minute, above=0)
        in_range("feedback", self.feedback, least=0, most=1)


@dataclass(slots=True)
class Played:
    """What one policy did at one load so far."""

    minutes: float = 0.0
    arrived: int = 0
    lines: list[RunLine] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Bench:
    """A benchmark under way; `result` may be asked for at any time."""

    workload: Workload
    plan: Plan
    told: Told = lambda _: None
    capacity: float | None = None
    played: dict[tuple[float, str], Played] = field(default_factory=dict)

    async def play(self, contestants: Sequence[Contestant]) -> None:
        """Plays all rounds. Cancelled, what is under way is cancelled too, and what has ended stays."""
        plan = self.plan
        self.capacity = plan.capacity_per_minute or await self.measured_capacity(contestants[0])
        for load in plan.loads:
            rate = load * self.capacity
            arrivals = arrivals_of(self.workload, per_minute=rate, minutes=plan.minutes, seed=plan.seed)
            for number, part in enumerate(rounds_of(arrivals, minutes=plan.minutes, rounds=plan.rounds)):
                turn = number % len(contestants)
                for contestant in (*contestants[turn:], *contestants[:turn]):
                    await self._round(contestant, part, load)

    async def measured_capacity(self, contestant: Contestant) -> float:
        """Runs per minute that a policy ends with some always under way and no deadlines."""
        draw, clock = random.Random(self.plan.seed), contestant.clock
        arrivals = arrivals_of(self.workload, per_minute=60.0, minutes=30.0, seed=draw.randrange(2**31))
        tasks = [one.task for one in arrivals[: self.plan.capacity_runs]]
        places, begun_s = asyncio.Semaphore(_AT_ONCE), clock()

        async def one(task: Task) -> None:
            async with places:
                of = replace(self.workload.of(task.slo_class), deadline_s=None)
                await contestant.run(task, of, arrival=-1, load=0.0, arrived_s=clock())

        await asyncio.gather(*map(one, tasks))
        return 60.0 * len(tasks) / max(clock() - begun_s, 1e-9)

    async def _round(self, contestant: Contestant, arrivals: Sequence[TaskArrival], load: float) -> None:
        played = self.played.setdefault((load, contestant.policy.name), Played())
        begun_s, share_s = contestant.clock(), 60.0 * self.plan.minutes / self.plan.rounds
        under_way: list[asyncio.Task[None]] = []

        async def one(arrival: TaskArrival) -> None:
            at_s = begun_s + arrival.at_s
            of = self.workload.of(arrival.task.slo_class)
            line = await contestant.run(arrival.task, of, arrival=arrival.number, load=load, arrived_s=at_s)
            played.lines.append(line)
            self._tell(contestant, line)
            self.told(line)

        try:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, begun_s + arrival.at_s - contestant.clock()))
                played.arrived += 1
                under_way.append(asyncio.create_task(one(arrival)))
            await asyncio.sleep(max(0.0, begun_s + share_s - contestant.clock()))
            if under_way:
                done, late = await asyncio.wait(under_way, timeout=self._drain_s)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                for task in done:
                    task.result()
        finally:
            played.minutes += min(share_s, contestant.clock() - begun_s) / 60.0
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    @property
    def _drain_s(self) -> float:
        limits = [one.deadline_s for one in self.workload.classes]
        return DRAIN_S if None in limits else max(filter(None, limits)) + 1.0

    def _tell(self, contestant: Contestant, line: RunLine) -> None:
        """Tells the policy how a run went, where a user would have."""
        drawn = random.Random(f"{self.plan.seed}/{line.load}/{line.arrival}").random()
        if drawn >= self.plan.feedback or not line.model or not line.judges:
            return
        way = line.way if len(self.workload.of(line.slo_class).ways) > 1 else ""
        contestant.models.outcomes.judged(line.slo_class, line.model, way, right=line.right)

    def result(self) -> dict[str, Any]:
        """The scores of what was played, by load and policy."""
        loads = []
        for load in self.plan.loads:
            here = {name: one for (at, name), one in self.played.items() if at == load}
            if not here:
                continue
            scores = {
                name: score(
                    one.lines,
                    self.workload,
                    minutes=one.minutes,
                    arrived=one.arrived,
                    seed=self.plan.seed,
                )
                for name, one in here.items()
            }
            loads.append({"load": load, "policies": scores, "over": self._over(here)})
        return {
            "capacity_per_minute": None if self.capacity is None else round(self.capacity, 3),
            "minutes": self.plan.minutes,
            "rounds": self.plan.rounds,
            "seed": self.plan.seed,
            "feedback": self.plan.feedback,
            "loads": loads,
        }

    def _over(self, here: dict[str, Played]) -> dict[str, dict[str, Any] | None]:
        """Goodput of `elastic` over each other policy's."""
        ours = next((name for name in here if name.split(":")[0] == "elastic"), None)
        if ours is None:
            return {}
        mine = here[ours].lines
        return {name: ratio(mine, one.lines, self.plan.seed) for name, one in here.items() if name != ours}
