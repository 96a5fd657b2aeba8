"""SharedDevice: engines of several models that take turns on one simulated device, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pentad.choice import Choice, build
from pentad.execution.engine import Engine
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.runner import SimulatedRunner, StepTimes
from pentad.types import Clock

_BLOCKS = 4096


@dataclass(slots=True, kw_only=True)
class DeviceEngine:
    """One model's real engine on the device."""

    engine: Engine
    clock: VirtualClock
    outputs: dict[str, asyncio.Queue[StepOutput]] = field(default_factory=dict)
    """By request under way."""


class SharedDevice:
    """Lets engines step one after the other, for as long as their costs say; time is the event loop's.

    What computes on a machine at once shares its cores and its memory's bandwidth, so two models together
    take about as long as one after the other.

    Args:
        clock: that of the event loop, which is virtual in simulations.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._engines: list[DeviceEngine] = []
        self._driver: asyncio.Task[None] | None = None

    def add(
        self, cost: StepTimes, *, scheduler: str = "sarathi", limits: EngineLimits | None = None
    ) -> DeviceEngine:
        """An engine of one more model."""
        clock = VirtualClock(self._clock())
        engine = Engine(
            SimulatedRunner(cost, clock, num_blocks=_BLOCKS),
            build("scheduler", Choice.of(scheduler)),
            limits=limits or EngineLimits(),
            clock=clock,
        )
        made = DeviceEngine(engine=engine, clock=clock)
        self._engines.append(made)
        return made

    async def generate(
        self, on: DeviceEngine, requests: Sequence[TokenRequest]
    ) -> AsyncGenerator[StepOutput, None]:
        """What steps give these requests, until all have ended. Raises what `Engine.add` raises."""
        arrived: asyncio.Queue[StepOutput] = asyncio.Queue()
        on.clock.now_s = max(on.clock.now_s, self._clock())
        on.engine.add(*requests)
        left = {request.id for request in requests}
        on.outputs |= dict.fromkeys(left, arrived)
        if self._driver is None:
            self._driver = asyncio.create_task(self._drive())
        try:
            while left:
                output = await arrived.get()
                if output.error is not None:
                    raise output.error
                if output.finish is not None:
                    left.discard(output.id)
                yield output
        finally:
            for id in left:
                on.engine.cancel(id)
            for request in requests:
                del on.outputs[request.id]

    async def _drive(self) -> None:
        """Steps as long as there is something to do."""
        try:
            while busy := [one for one in self._engines if one.engine.has_work]:
                for one in busy:
                    one.clock.now_s = max(one.clock.now_s, self._clock())
                    outputs = one.engine.step()
                    await asyncio.sleep(max(0.0, one.clock.now_s - self._clock()))
                    for output in outputs:
                        if output.id in one.outputs:
                            one.outputs[output.id].put_nowait(output)
        finally:
            self._driver = None
