"""Policies on simulated models in virtual time: the same policies, runtime and arrivals as live."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.workload import Task, Workload
from pentad.agent.limits import RuntimeLimits
from pentad.agent.runtime import AgentRuntime
from pentad.agent.state import RunState
from pentad.application.bench.elastic.contestant import Contestant, teach
from pentad.application.bench.elastic.counted_journal import CountedJournal
from pentad.application.bench.elastic.live import MOST_RUNS, warm
from pentad.application.bench.elastic.policy import BenchPolicy
from pentad.application.bench.elastic.run_line import RunLine
from pentad.application.bench.elastic.simulated_model import RIGHT, Recorded, SimulatedModel
from pentad.choice import build
from pentad.errors import InvalidRequest
from pentad.execution.scheduling import EngineLimits
from pentad.model.prices import Price
from pentad.model.service import ModelService
from pentad.resource.simulator.runner import StepTimes
from pentad.resource.simulator.shared_device import SharedDevice
from pentad.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMachine:
    """What the models of a simulation are computed on."""

    costs: Mapping[str, StepTimes]
    """By model, how long its steps take there."""
    qualities: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    limits: EngineLimits = field(default_factory=EngineLimits)
    scheduler: str = "sarathi"


@asynccontextmanager
async def simulated_contestants(
    machine: SimulatedMachine,
    policies: Sequence[BenchPolicy],
    workload: Workload,
    known: Sequence[RunLine],
    *,
    seed: int,
) -> AsyncIterator[list[Contestant]]:
    """Each policy on a machine of its own, all alike. To be run on a `VirtualLoop`.

    Args:
        known: earlier runs: what answers come to, and what policies are taught.

    Raises InvalidRequest for a policy that cannot be simulated.
    """
    if elsewhere := [one.name for one in policies if one.url]:
        raise InvalidRequest(
            f"{elsewhere[0]!r} is another server, which is not simulated",
            hint="leave it out of --policies with --simulate",
            param="policies",
        )
    recorded = Recorded(lines=known, seed=seed, qualities=dict(machine.qualities))
    goals = {task.prompt: task.id for task in workload.tasks}
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as undo:
        folder = pathlib.Path(undo.enter_context(_folder()))
        found = []
        for number, policy in enumerate(policies):
            models = _models(machine, policy, workload, recorded, goals)
            undo.push_async_callback(models.close)
            await warm(models)
            teach(models, known, workload)
            journal = CountedJournal(folder / f"{number}.db", clock=loop.time)
            limits = RuntimeLimits(max_runs=MOST_RUNS)
            runtime = AgentRuntime(models, journal, limits=limits, clock=loop.time)
            undo.push_async_callback(runtime.close)
            found.append(
                Contestant(
                    policy=policy,
                    models=models,
                    runtime=runtime,
                    clock=loop.time,
                    judge=_said,
                    simulated=True,
                )
            )
        yield found


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the journals are, for as long as it lasts; in memory if it can be, since nobody reads them."""
    memory = pathlib.Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="pentad-simulated-", dir=memory if memory.is_dir() else None)


def _models(
    machine: SimulatedMachine,
    policy: BenchPolicy,
    workload: Workload,
    recorded: Recorded,
    goals: Mapping[str, str],
) -> ModelService:
    loop = asyncio.get_running_loop()
    device = SharedDevice(loop.time)
    ways = {one.name: policy.way(one) for one in workload.classes}

    def task_of(request: Request) -> str:
        contents = [message.content for message in request.messages or ()]
        return next((goals[one] for one in reversed(contents) if one in goals), "")

    def way_of(slo_class: str) -> str:
        return ways.get(slo_class, "")

    backends = {
        name: SimulatedModel(
            name,
            device,
            device.add(cost, scheduler=machine.scheduler, limits=machine.limits),
            recorded,
            task_of=task_of,
            way_of=way_of,
        )
        for name, cost in machine.costs.items()
    }
    return ModelService(
        backends,
        router=build("router", policy.router),
        prices=machine.prices,
        qualities=machine.qualities,
        clock=loop.time,
    )


async def _said(task: Task, state: RunState) -> Score:  # noqa: ARG001
    """Whether the simulated answer says that it is right."""
    right = RIGHT.split()[-1] in state.answer
    return Score(value=float(right), about="right" if right else "wrong, as simulated")
