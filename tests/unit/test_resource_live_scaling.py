"""Scaling on one machine: models go when nobody asks, come when somebody does, never under a request."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable

import pytest

from model_fixtures import tiny_llama_gguf
from pentad.application.config import EngineSettings, Settings
from pentad.application.config_loading import resolve
from pentad.application.wiring import build as build_services
from pentad.choice import Choice, build
from pentad.errors import Incompatible, Overloaded, PentadError, Unavailable
from pentad.execution.loop import EngineDriver, EngineLoop
from pentad.model.store import ModelStore
from pentad.resource.scaling.base import FleetScaler
from pentad.resource.scaling.engine import ScaledEngine
from pentad.resource.scaling.live import LiveFleet
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, token_request, toy_engine
from pentad.testing.runners import ToyRunner
from pentad.types import Request, Sampling

PATIENCE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def loop() -> EngineDriver:
    return EngineLoop(toy_engine(Sarathi(), runner=ToyRunner(num_blocks=400, context_length=2000)))


def fleet(
    scaler: str, clock: Clock, load: Callable[[], EngineDriver] = loop
) -> tuple[LiveFleet, ScaledEngine]:
    chosen: FleetScaler = build("scaler", Choice.of(scaler))
    made = LiveFleet(chosen, slots=4, clock=clock)
    return made, made.add("m", load, 2, loop())


async def answer(engine: ScaledEngine, id: str, tokens: int = 5) -> list[int]:
    found = Answer()
    async for output in engine.generate([token_request(id, (1, 2, 3), max_tokens=tokens)]):
        found.take(output)
    return found.tokens


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - states of several objects
            await asyncio.sleep(0.005)


def test_an_idle_model_is_unloaded_and_the_next_request_loads_it_and_is_answered_alike() -> None:
    async def run() -> None:
        clock = Clock()
        made, engine = fleet("queue:least=0,calm_s=10,interval_s=0.01", clock)
        first = await answer(engine, "a")
        task = asyncio.create_task(made.run())
        await asyncio.sleep(0.05)
        assert engine.state == "ready", "it is not calm for long enough yet"
        clock.now_s = 11.0
        await until(lambda: engine.state == "spare")
        assert engine.stats()["running"] == 0
        assert engine.check() is None
        assert await answer(engine, "b") == first
        assert engine.state == "ready"
        assert [decision.chosen for decision in made.decisions] == ["0", "1"]
        task.cancel()
        await engine.close(0.0)

    asyncio.run(run())


def test_requests_that_are_there_end_before_it_goes_and_those_that_come_meanwhile_keep_it() -> None:
    async def run() -> None:
        _, engine = fleet("fixed", Clock())
        long = asyncio.create_task(answer(engine, "long", tokens=500))
        await until(lambda: engine.running == 1)
        going = asyncio.create_task(engine.unload())
        await until(lambda: engine.state == "draining")
        late = asyncio.create_task(answer(engine, "late"))
        await until(lambda: engine.waiting == 1)
        assert len(await long) == 500
        await going
        assert engine.state == "spare"
        await engine.load()
        assert len(await late) == 5
        again = asyncio.create_task(answer(engine, "again", tokens=500))
        await until(lambda: engine.running == 1)
        going = asyncio.create_task(engine.unload())
        await until(lambda: engine.state == "draining")
        await engine.load()
        await going
        assert engine.state == "ready", "it was wanted again before it was gone"
        assert len(await again) == 500
        await engine.close(0.0)

    asyncio.run(run())


def test_a_load_that_fails_is_told_to_who_waits_and_may_succeed_later() -> None:
    failures = [Unavailable("no memory", hint="free some")]

    def load() -> EngineDriver:
        if failures:
            raise failures.pop()
        return loop()

    async def run() -> None:
        clock = Clock()
        made, engine = fleet("queue:least=0,calm_s=0,interval_s=0.01", clock, load)
        await engine.unload()
        task = asyncio.create_task(made.run())
        with pytest.raises(Unavailable, match="cannot be loaded: no memory; free some"):
            await answer(engine, "a")
        assert engine.check() is None or "no memory" in str(engine.check())
        assert len(await answer(engine, "b")) == 5
        task.cancel()
        await engine.close(0.0)

    asyncio.run(run())


def test_who_would_wait_for_ever_or_in_too_long_a_queue_is_refused() -> None:
    async def run() -> None:
        made, engine = fleet("fixed:replicas=0", Clock())
        await engine.unload()
        waiting = [asyncio.create_task(answer(engine, name)) for name in "ab"]
        await until(lambda: engine.waiting == 2)
        with pytest.raises(Overloaded, match="2 requests wait for the model to be loaded"):
            engine.refuse_if_full()
        task = asyncio.create_task(made.run())
        for _ in range(3):
            made.wake()
            await asyncio.sleep(0.02)
        for each in waiting:
            with pytest.raises(Unavailable, match="scaler 'fixed' keeps it unloaded"):
                await each
        task.cancel()
        await engine.close(0.0)

    asyncio.run(run())


def test_closing_ends_those_who_wait() -> None:
    async def run() -> None:
        _, engine = fleet("fixed", Clock())
        await engine.unload()
        waiting = asyncio.create_task(answer(engine, "a"))
        await until(lambda: engine.waiting == 1)
        await engine.close(0.0)
        with pytest.raises(PentadError, match="the server stops"):
            await waiting

    asyncio.run(run())


def test_what_one_machine_cannot_do_is_refused() -> None:
    with pytest.raises(
        Incompatible, match="keeps 2 replicas of each model up, this machine runs one of each"
    ):
        fleet("queue:least=2", Clock())
    fleet("queue:least=1", Clock())


class TestWired:
    def settings(self, tmp_path: pathlib.Path, **changes: object) -> Settings:
        file = tmp_path / "tiny.gguf"
        file.write_bytes(tiny_llama_gguf())
        ModelStore(tmp_path / "home").pull(str(file), name="tiny")
        return Settings(home=tmp_path / "home", embedding_model=None, models=("tiny",), **changes)  # type: ignore[arg-type]

    def test_a_served_model_comes_and_goes_with_the_setting(self, tmp_path: pathlib.Path) -> None:
        scaler = Choice(name="queue", options={"least": 0, "calm_s": 0.05, "interval_s": 0.02})

        async def run() -> list[str]:
            async with build_services(self.settings(tmp_path, scaler=scaler)) as services:

                async def ask(id: str) -> str:
                    sampling = Sampling(max_tokens=4, temperature=0)
                    request = Request(id=id, model="tiny", token_ids=(1, 2, 3), sampling=sampling)
                    return (await services.models.complete(request)).message.content

                first = await ask("a")
                engine = services.models._backends["tiny"]._loop  # type: ignore[attr-defined]
                await until(lambda: engine.state == "spare")
                counted = Request(id="c", model="tiny", token_ids=(1, 2, 3))
                assert services.models.count_tokens(counted) == 3, "its tokenizer stays"
                return [first, await ask("b")]

        first, second = asyncio.run(run())
        assert first == second

    def test_llamacpp_is_not_scaled(self, tmp_path: pathlib.Path) -> None:
        settings = self.settings(
            tmp_path, scaler=Choice(name="queue"), engine=EngineSettings(backend="llamacpp")
        )

        async def run() -> None:
            async with build_services(settings):
                pass

        with pytest.raises(Incompatible, match="not llama"):
            asyncio.run(run())

    def test_it_is_set_by_flag_variable_and_file(self, tmp_path: pathlib.Path) -> None:
        wanted = Choice(name="queue", options={"least": 0})
        assert resolve({"scaler": "queue:least=0"}, env={}).settings.scaler == wanted
        assert resolve(env={}, folder=tmp_path).settings.scaler is None
