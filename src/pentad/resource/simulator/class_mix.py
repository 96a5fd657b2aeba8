"""Requests of several classes on models that share a device: how many keep what their class is promised."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from pentad.errors import PentadError
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.ranges import in_range
from pentad.resource.service_classes import ServiceClass
from pentad.resource.simulator.runner import StepTimes
from pentad.resource.simulator.shared_device import DeviceEngine, SharedDevice
from pentad.resource.simulator.virtual_loop import VirtualLoop
from pentad.types import RunContext, Sampling

TIMES: Final = ("ttft_s", "inter_token_s", "deadline_s")
_REQUESTS: Final = 120
"""Of all classes together, in one simulation."""
_LEAST: Final = 20
"""Of each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoad:
    """The requests of one class."""

    per_minute: float = 6.0
    """Requests that arrive, at random instants."""
    prompt_tokens: int = 256
    answer_tokens: int = 128

    def __post_init__(self) -> None:
        in_range("per_minute", self.per_minute, above=0)
        in_range("prompt_tokens", self.prompt_tokens, least=1)
        in_range("answer_tokens", self.answer_tokens, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One simulated request."""

    ttft_s: float
    inter_token_s: float
    deadline_s: float
    """From its arrival to its end."""

    def keeps(self, of: ServiceClass) -> bool:
        """Whether every time that its class is promised was kept."""
        limits = [(getattr(self, name), getattr(of, name)) for name in TIMES]
        return all(limit is None or value <= limit for value, limit in limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMix:
    """Classes, which model serves each, and on what."""

    classes: Sequence[ServiceClass]
    loads: Mapping[str, ClassLoad]
    models: Mapping[str, str]
    """By class; one that is not here is not served."""
    costs: Mapping[str, StepTimes]
    """By model."""
    limits: EngineLimits = field(default_factory=EngineLimits)
    scheduler: str = "sarathi"
    seed: int = 0

    def simulate(self, share: float = 1.0) -> dict[str, list[Served]]:
        """By class what its requests met, at a share of the loads. The same again for the same mix."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(self._simulate(share))

    async def _simulate(self, share: float) -> dict[str, list[Served]]:
        device = SharedDevice(asyncio.get_running_loop().time)
        engines = {
            name: device.add(self.costs[name], scheduler=self.scheduler, limits=self.limits)
            for name in sorted(set(self.models.values()))
        }
        served = [one for one in self.classes if one.name in self.models]
        rates = {one.name: share * self.loads[one.name].per_minute / 60.0 for one in served}
        span_s = max(_REQUESTS / sum(rates.values()), max(_LEAST / rate for rate in rates.values()))
        found: dict[str, list[Served]] = {one.name: [] for one in served}
        async with asyncio.TaskGroup() as group:
            for one in served:
                group.create_task(
                    self._arrive(one, rates[one.name], span_s, device, engines[self.models[one.name]], found)
                )
        for engine in engines.values():
            engine.engine.close()
        return found

    async def _arrive(
        self,
        of: ServiceClass,
        rate: float,
        span_s: float,
        device: SharedDevice,
        engine: DeviceEngine,
        found: dict[str, list[Served]],
    ) -> None:
        draw = random.Random(f"{self.seed}/{of.name}")
        left_s, number = span_s, 0
        async with asyncio.TaskGroup() as group:
            while (wait_s := draw.expovariate(rate)) < left_s and number < _REQUESTS:
                left_s, number = left_s - wait_s, number + 1
                await asyncio.sleep(wait_s)
                request = self._request(of, f"{of.name}-{number}", draw, engine)
                group.create_task(_serve(request, device, engine, found[of.name]))

    def _request(self, of: ServiceClass, id: str, draw: random.Random, engine: DeviceEngine) -> TokenRequest:
        load, vocab = self.loads[of.name], engine.engine.runner.spec.vocab_size
        return TokenRequest(
            id=id,
            prompt=tuple(draw.randrange(vocab) for _ in range(load.prompt_tokens)),
            sampling=Sampling(max_tokens=load.answer_tokens),
            max_tokens=load.answer_tokens,
            priority=of.priority or 0,
            context=RunContext(objective=of.objective),
        )


async def _serve(
    request: TokenRequest, device: SharedDevice, engine: DeviceEngine, found: list[Served]
) -> None:
    clock = asyncio.get_running_loop().time
    arrived_s, first_s, drawn = clock(), float("inf"), 0
    try:
        async with aclosing(device.generate(engine, [request])) as outputs:
            async for output in outputs:
                if output.drawn and not drawn:
                    first_s = clock() - arrived_s
                drawn += len(output.drawn)
    except PentadError:  # it is refused: nothing is kept
        found.append(Served(ttft_s=float("inf"), inter_token_s=float("inf"), deadline_s=float("inf")))
        return
    total_s = clock() - arrived_s
    found.append(
        Served(ttft_s=first_s, inter_token_s=(total_s - first_s) / max(1, drawn - 1), deadline_s=total_s)
    )
