"""Replicas: the outputs of one engine, requests at the least busy one, runs where their cache is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

import phase_worlds
from evidence.plugin import Measure
from pentad.errors import Overloaded, PentadError, Unavailable
from pentad.execution.device import Cluster, LinkSpeed
from pentad.execution.loop import EngineLoop
from pentad.execution.replicas import Replicas
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import PlacementProblem, Workload
from pentad.resource.placement.data_parallel import DataParallel
from pentad.resource.simulator import Fleet, Policies, SimulationOptions, simulate_fleet
from pentad.testing.engines import Answer, token_request, toy_engine
from pentad.types import RunContext


class Driven(EngineLoop):
    """A toy engine that can be ill or full, and answers questions."""

    trouble: str | None = None
    refusal: PentadError | None = None

    def __init__(self) -> None:
        super().__init__(toy_engine())
        self.asked: list[bytes] = []

    def check(self) -> str | None:
        return self.trouble or super().check()

    def refuse_if_full(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        super().refuse_if_full()

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        if self.refusal is not None:
            raise self.refusal
        async for output in super().generate(requests):
            yield output

    def call(self, question: bytes) -> bytes:
        self.asked.append(question)
        return question[::-1]


async def answer(driver: Any, request: TokenRequest) -> list[int]:
    found = Answer()
    async for output in driver.generate([request]):
        found.take(output)
    return found.tokens


def request(number: int, run_id: str | None = None) -> TokenRequest:
    made = token_request(f"r{number}", (number % 7 + 1, 2, 3), max_tokens=6)
    return (
        made
        if run_id is None
        else token_request(
            f"r{number}", (number % 7 + 1, 2, 3), max_tokens=6, context=RunContext(run_id=run_id)
        )
    )


def played(count: int, requests: Sequence[TokenRequest]) -> tuple[list[list[int]], list[int]]:
    """What all requests, asked at once, are answered by so many replicas; how many each was given."""

    async def run() -> tuple[list[list[int]], list[int]]:
        driver = Replicas([Driven() for _ in range(count)])
        try:
            return list(await asyncio.gather(*(answer(driver, one) for one in requests))), driver.given
        finally:
            await driver.close(0.0)

    return asyncio.run(run())


@pytest.mark.row("par-dp", "mechanism", claims=(2,))
def test_outputs_are_those_of_one_engine_and_each_replica_takes_its_part() -> None:
    requests = [request(i) for i in range(12)]
    alone, _ = played(1, requests)
    tokens, given = played(3, requests)
    assert tokens == alone
    assert given == [4, 4, 4]


def test_a_run_stays_where_its_cache_is_unless_that_is_busy() -> None:
    async def run() -> None:
        driver = Replicas([Driven(), Driven()])
        for i in range(4):
            await answer(driver, request(i, "run"))
        assert driver.given == [4, 0]
        await asyncio.gather(*(answer(driver, request(10 + i, "run")) for i in range(8)))
        assert driver.given[1] > 0, "one replica was given everything while the other was idle"
        await driver.close(0.0)

    asyncio.run(run())


def test_who_is_ill_or_full_is_passed_over_until_nobody_is_left() -> None:
    async def run() -> None:
        first, second = Driven(), Driven()
        driver = Replicas([first, second])
        first.trouble = "it hangs"
        await answer(driver, request(1))
        assert driver.given == [0, 1]
        assert driver.check() is None
        first.trouble, first.refusal = None, Overloaded("full", hint="wait")
        driver.refuse_if_full()
        assert await answer(driver, request(2))
        second.refusal = Unavailable("gone", hint="wait")
        with pytest.raises(Overloaded, match="full"):
            await answer(driver, request(3))
        with pytest.raises(Overloaded, match="full"):
            driver.refuse_if_full()
        assert driver._busy == [0, 0]
        await driver.close(0.0)

    asyncio.run(run())


def test_questions_reach_all_and_statistics_are_summed() -> None:
    async def run() -> None:
        replicas = [Driven(), Driven()]
        driver = Replicas(replicas)
        assert driver.call(b"ab") == b"ba"
        assert [replica.asked for replica in replicas] == [[b"ab"], [b"ab"]]
        await answer(driver, request(1))
        one, both = replicas[1].stats(), driver.stats()
        assert both["kv_blocks"] == 2 * one["kv_blocks"]
        assert both["kv_usage_fraction"] <= 1
        await driver.close(0.0)

    asyncio.run(run())


@pytest.mark.row("par-dp", "effect", claims=(1,))
def test_two_replicas_answer_nearly_twice_as_much_in_the_same_time(measured: Measure) -> None:
    """A burst of conversations (the mean lengths of the Azure trace) for Llama 13B on A100s."""
    items = phase_worlds.poisson(
        240, rate_per_s=1000.0, prompt_tokens=(200, 1800), output_tokens=(60, 200), seed=2
    )
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=512, max_sequences=256, max_waiting=100_000)
    )

    def run(count: int) -> tuple[float, list[list[int]]]:
        cluster = Cluster(
            devices=phase_worlds.several("a100-sxm-80gb", count),
            default_link=LinkSpeed(bytes_per_s=3e11, latency_s=5e-6),
        )
        load = Workload(prompt_tokens=1000, new_tokens=130, concurrency=count)
        plan = DataParallel().plan(
            PlacementProblem(spec=phase_worlds.LLAMA_13B, cluster=cluster, workload=load)
        )
        fleet = Fleet(spec=phase_worlds.LLAMA_13B, cluster=cluster, plan=plan, context=RunContext())
        total = simulate_fleet(items, fleet, Policies.of(), options=options).total
        assert len(total.completed) == len(items)
        begin = min(record.arrived_s for record in total.records)
        end = max(record.finished_s or 0.0 for record in total.records)
        tokens = [list(record.tokens) for record in total.records]
        return sum(map(len, tokens)) / (end - begin), tokens

    (one, alone), (two, both) = run(1), run(2)
    assert both == alone
    measured("tokens a second of two replicas over one", two / one, at_least=1.9, unit="x")
