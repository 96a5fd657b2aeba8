"""Models and adapters in 3 GB, 200 requests in random order: memory is never above, and none is held up."""

from __future__ import annotations

import asyncio
import pathlib
import random
import sys
import time
from dataclasses import dataclass, field

import psutil
import pytest

from adapter_files import write_adapter
from pentad.application.config import EngineSettings, Settings
from pentad.application.services import Services
from pentad.application.wiring import build
from pentad.execution.backend import StreamDone
from pentad.execution.worker.interpreters import Interpreters
from pentad.model.loading import open_model
from pentad.types import Request, Sampling

BUDGET = 3_000_000_000
REQUESTS = 200
EVERY_S = 0.08
AT_ONCE = 4
"""Of one name."""
WORKER = (sys.executable, "-m", "pentad.application.worker")


@dataclass
class Seen:
    """What was measured while requests ran."""

    answered: int = 0
    most_bytes: int = 0
    most_booked: int = 0
    hot_waits_s: list[float] = field(default_factory=list)
    """Of requests whose model was loaded while another one was loading: until their first token."""
    loads_s: list[float] = field(default_factory=list)


def used_bytes() -> int:
    """Of this process and all that it started: each page once."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


async def watch(services: Services, seen: Seen) -> None:
    assert services.local is not None
    while True:
        seen.most_bytes = max(seen.most_bytes, await asyncio.to_thread(used_bytes))
        seen.most_booked = max(seen.most_booked, services.local.pool.booked_bytes)
        await asyncio.sleep(0.05)


async def ask(services: Services, name: str, number: int, seen: Seen) -> None:
    served = services.models.served
    loading = any(slot.state == "loading" for slot in services.local.pool.slots.values())  # type: ignore[union-attr]
    slot = served.slot(name)
    assert slot is not None
    hot, began_s = slot.state == "loaded", time.monotonic()
    if name in served.embedders:
        found = await services.models.embed(name, [f"text {number}"])
        assert len(found.vectors[0]) == 384
        first_s = time.monotonic() - began_s
    else:
        request = Request(
            id=f"r{number}", model=name, text=f"{number} is", sampling=Sampling(max_tokens=8, temperature=0)
        )
        first_s, done = 0.0, False
        async for delta in services.models.stream(request):
            first_s = first_s or time.monotonic() - began_s
            done = done or isinstance(delta, StreamDone)
            if isinstance(delta, StreamDone):
                assert delta.usage.completion_tokens > 0
                waited = [span for span in delta.usage.spans if span.name == "load"]
                assert not (hot and waited)
                seen.loads_s += [span.end_s - span.start_s for span in waited]
        assert done
    seen.answered += 1
    if hot and loading:
        seen.hot_waits_s.append(first_s)


@pytest.mark.slow
def test_200_requests_in_random_order_within_3_gb(
    smollm2_path: pathlib.Path, qwen_path: pathlib.Path, minilm_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name, path in (("small", smollm2_path), ("large", qwen_path)):
        (models / f"{name}.gguf").symlink_to(path.resolve())
    files = open_model(smollm2_path)
    adapters = {f"small:{name}": tmp_path / name for name in "ab"}
    for seed, folder in enumerate(adapters.values()):
        write_adapter(folder, files.spec, seed)
    files.close()
    settings = Settings(
        home=tmp_path / "home",
        models=(str(models / "small.gguf"), str(models / "large.gguf")),
        embedding_model=str(minilm_path),
        memory_bytes=BUDGET,
        # Both generators, with room for long texts, do not fit at once.
        engine=EngineSettings(
            kv_bytes=1 << 30, threads=1, adapters={name: str(path) for name, path in adapters.items()}
        ),
    )
    seen = Seen()

    async def run() -> None:
        dice = random.Random(5)
        async with build(settings, workers=Interpreters(WORKER)) as services:
            assert services.local is not None
            pool = services.local.pool
            needs = {name: str(slot.need) for name, slot in pool.slots.items()}
            print(f"\n{pool.budget_bytes / 1e6:.0f} MB for {needs}")
            assert sum(s.need.total_bytes for s in pool.slots.values()) > pool.budget_bytes
            watching = asyncio.create_task(watch(services, seen))
            gates = {name: asyncio.Semaphore(AT_ONCE) for name in (*pool.slots, *adapters)}

            async def one(number: int) -> None:
                await asyncio.sleep(number * EVERY_S)
                async with gates[names[number]]:
                    await ask(services, names[number], number, seen)

            # In stretches, as people ask: mostly the one that was asked before.
            names: list[str] = []
            listed = list(gates)
            for _ in range(REQUESTS):
                stay = names and dice.random() < 0.85
                names.append(names[-1] if stay else dice.choice(listed))
            await asyncio.gather(*(one(number) for number in range(REQUESTS)))
            watching.cancel()
            seen.most_booked = max(seen.most_booked, pool.booked_bytes)
            print(
                f"\n{seen.answered} answered, {len(pool.decisions)} evictions, most memory "
                f"{seen.most_bytes / 1e6:.0f} MB (booked {seen.most_booked / 1e6:.0f} MB), waits for loads "
                f"{[round(s, 1) for s in seen.loads_s]}, of loaded models meanwhile "
                f"{[round(s, 2) for s in seen.hot_waits_s]}"
            )
            assert pool.decisions, "somebody had to leave"

    asyncio.run(run())
    assert seen.answered == REQUESTS
    assert seen.most_bytes <= BUDGET
    assert seen.hot_waits_s, "some were answered while another model was loaded"
    assert max(seen.hot_waits_s) < max(seen.loads_s)
