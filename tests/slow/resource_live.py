"""What the slow resource tests share: a profile of this machine, and live replays of traces."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import pytest

from pentad import registry
from pentad.application.config import EngineSettings
from pentad.application.runners import choose
from pentad.execution.device import DeviceProfile
from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.runner import Runner
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.model.loading import open_model
from pentad.resource import profile
from pentad.resource.simulator import RequestRecord, TraceItem
from pentad.resource.simulator.events import note, request_of

AZURE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "azure-llm-2023-conv.csv"


def this_machine() -> DeviceProfile:
    """Measured now, unless PENTAD_TEST_PROFILE names a file measured shortly before."""
    saved = os.environ.get("PENTAD_TEST_PROFILE")
    if saved:
        return profile.load(saved)
    return profile.measure(lambda line: print(line, flush=True))


def azure_trace() -> pathlib.Path:
    """The Azure conversation trace; skips aloud where it is not."""
    if not AZURE.exists():
        pytest.skip(f"the Azure conversation trace is not at {AZURE}")
    return AZURE


def open_runner(path: pathlib.Path, *, num_blocks: int, dtype: str = "auto") -> Any:
    """A model file in the runner that an engine would use here, with its `form`."""
    files = open_model(path)
    choice = choose(files, EngineSettings(weight_dtype=dtype))  # type: ignore[arg-type]
    runner_class = registry.load("runner", choice.runner)
    return runner_class.load(files.spec, files.weights, num_blocks=num_blocks, dtype=dtype)


def live(
    runner: Runner, scheduler: BatchScheduler, limits: EngineLimits, trace: Sequence[TraceItem]
) -> list[RequestRecord]:
    """Replays a trace in real time through the engine and its loop; records in trace order.

    Closes the runner.
    """

    async def replay() -> list[RequestRecord]:
        engine = Engine(runner, scheduler, limits=limits)
        loop = EngineLoop(engine)
        start_s = time.monotonic()

        async def one(item: TraceItem) -> RequestRecord:
            request = request_of(item, runner.spec.vocab_size)
            await asyncio.sleep(max(0.0, start_s + item.arrival_s - time.monotonic()))
            record = RequestRecord(item=item, arrived_s=time.monotonic() - start_s)
            async for output in loop.generate([request]):
                note(record, output, time.monotonic() - start_s)
            return record

        try:
            return await asyncio.gather(*(one(item) for item in trace))
        finally:
            await loop.close(5.0)

    return asyncio.run(replay())
