"""Policies on real models in this process."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from pentad import registry
from pentad.agent.evaluation.workload import Workload
from pentad.agent.journal import Journal
from pentad.agent.limits import RuntimeLimits
from pentad.agent.runtime import AgentRuntime
from pentad.application import wiring
from pentad.application.bench.elastic.contestant import Contestant, teach
from pentad.application.bench.elastic.policy import BenchPolicy, models_of
from pentad.application.bench.elastic.run_line import RunLine
from pentad.application.config import Settings
from pentad.choice import build
from pentad.model.backends.endpoint import Endpoint
from pentad.model.service import ModelService
from pentad.types import Message, Request, Sampling

MOST_RUNS = 4096
_PEER_CONTEXT = 8192
_WARM = "Count from one to ten in words."


def settings_with(settings: Settings, policies: Sequence[BenchPolicy]) -> Settings:
    """The settings that serve what the policies name; and, where one chooses, all that they serve anyhow."""
    # What is given as a path is served, and named by policies, under the name of its file.
    elsewhere = {backend.name for backend in settings.backends}
    known = elsewhere | {pathlib.PurePath(name).stem for name in settings.models if "/" in name}
    local = [name for name in models_of(policies) if name not in known]
    chooses = any(one.model == "auto" for one in policies)
    paths = any("/" in name for name in settings.models)
    models = dict.fromkeys((*settings.models, *local)) if chooses or paths or not local else local
    return settings.model_copy(update={"models": tuple(models)})


@asynccontextmanager
async def live_contestants(
    settings: Settings, policies: Sequence[BenchPolicy], workload: Workload, known: Sequence[RunLine]
) -> AsyncIterator[list[Contestant]]:
    """Each policy on the models that the settings serve, all loaded and asked once.

    Args:
        known: earlier runs, which policies that learn are taught.

    Raises what building the services raises.
    """
    async with wiring.build(settings) as services, AsyncExitStack() as undo:
        await warm(services.models)
        found = []
        for policy in policies:
            models = _peer(policy) if policy.url else services.models.under(build("router", policy.router))
            if policy.url:
                undo.push_async_callback(models.close)
            teach(models, known, workload)
            limits = RuntimeLimits(max_runs=MOST_RUNS, approvals_path=settings.approvals_path)
            journal = await asyncio.to_thread(Journal, settings.journal_path, clock=services.clock)
            runtime = AgentRuntime(models, journal, limits=limits, clock=services.clock)
            undo.push_async_callback(runtime.close)
            found.append(Contestant(policy=policy, models=models, runtime=runtime, clock=services.clock))
        yield found


def _peer(policy: BenchPolicy) -> ModelService:
    """A service of the one model that a policy asks elsewhere; nobody else can be led there."""
    endpoint = Endpoint(base_url=policy.url, model=policy.there, context_length=_PEER_CONTEXT, remote=False)
    backend = registry.load("backend", "openai")(endpoint, name=policy.model)
    return ModelService({policy.model: backend}, router=build("router", policy.router))


async def warm(models: ModelService) -> None:
    """Asks each model twice, so that all are loaded and their speeds are known."""
    for name in models.served.backends:
        for number in range(2):
            request = Request(
                id=f"warm-{name}-{number}",
                model=name,
                messages=(Message(role="user", content=_WARM),),
                sampling=Sampling(max_tokens=24, temperature=0.0, fit_max_tokens=True),
            )
            await models.complete(request)
