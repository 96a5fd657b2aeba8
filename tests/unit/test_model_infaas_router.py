"""The router infaas: the cheapest variant that is accurate and in time, and what it saves on a trace."""

from __future__ import annotations

import asyncio
import csv
import heapq
import itertools
import pathlib
import random
import statistics
import time
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from test_model_routing import candidate, request, state

from evidence.plugin import Measure
from pentad.errors import Infeasible
from pentad.execution.backend import Backend
from pentad.model.backends.pooled import PooledBackend
from pentad.model.prices import Price
from pentad.model.routing.base import Candidate, ModelRouter
from pentad.model.routing.fixed import Fixed
from pentad.model.routing.infaas import Infaas
from pentad.model.routing.speed import Speed
from pentad.model.service import ModelService
from pentad.resource.eviction.least_recent import LeastRecent
from pentad.resource.model_pool import ModelPool
from pentad.resource.model_slot import MemoryNeed
from pentad.testing.backends import ScriptedBackend
from pentad.types import Hints, Objective, RunContext

AZURE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "azure-llm-2023-conv.csv"


def variant(quality: float, price: float, token_s: float, **load: float) -> Candidate:
    speed = Speed(prompt_s=token_s * 20, prompt_tokens=1000, token_s=token_s, at_s=0.5)
    return candidate(quality=quality, price=Price(prompt=price, completion=price), speed=speed, load=load)


def wanting(quality: float, deadline_s: float, tokens: int = 100) -> RunContext:
    return RunContext(
        objective=Objective(min_quality=quality, deadline_s=deadline_s), hints=Hints(output_tokens=tokens)
    )


class TestChoice:
    @pytest.mark.row("ms-infaas", "mechanism")
    def test_accuracy_time_and_load_choose_the_variant(self) -> None:
        idle = {"small": variant(0.5, 1, 0.01), "large": variant(0.9, 20, 0.05)}
        assert Infaas().route(state(idle, context=wanting(0.4, 10)))[0] == "small"
        assert Infaas().route(state(idle, context=wanting(0.8, 10)))[0] == "large"
        busy = {"small": variant(0.5, 1, 0.01, running=1, waiting=9), "large": variant(0.9, 20, 0.05)}
        chosen, decision = Infaas().route(state(busy, context=wanting(0.4, 6)))
        assert (chosen, decision.constraint) == ("large", "slo.deadline_s")

    @pytest.mark.row("ms-infaas", "mechanism")
    def test_the_time_to_load_counts(self) -> None:
        cold = {"small": variant(0.5, 1, 0.01, load_s=30), "large": variant(0.9, 20, 0.05)}
        assert Infaas().route(state(cold, context=wanting(0.4, 10)))[0] == "large"
        assert Infaas().route(state(cold, context=wanting(0.4, 60)))[0] == "small"

    def test_where_none_is_in_time_the_least_late_serves(self) -> None:
        slow = {"small": variant(0.5, 1, 0.5), "large": variant(0.9, 20, 0.2)}
        chosen, decision = Infaas().route(state(slow, context=wanting(0.4, 1)))
        assert (chosen, decision.constraint) == ("large", "no variant in time")
        with pytest.raises(Infeasible):
            Infaas().route(state(slow, context=wanting(0.95, 1)))


@pytest.mark.row("ms-infaas", "mechanism")
def test_a_model_of_the_pool_tells_what_its_load_takes_and_infaas_counts_it() -> None:
    async def run() -> list[str]:
        pool = ModelPool(budget_bytes=10**10, policy=LeastRecent(), clock=time.monotonic)
        served = ScriptedBackend(["small"], repeat=True)

        async def unload(backend: Backend) -> None:
            del backend

        need = MemoryNeed(weights_bytes=5 * 10**9)
        slot = pool.add("small", need=need, load=lambda: served, unload=unload)
        cold = PooledBackend(slot, served.capabilities)
        prices = {"small": Price(prompt=1, completion=1), "large": Price(prompt=20, completion=20)}
        service = ModelService(
            {"large": ScriptedBackend(["large"], repeat=True), "small": cold}, router=Infaas(), prices=prices
        )
        wish = request(context=RunContext(objective=Objective(deadline_s=10)))
        assert cold.stats()["load_s"] > 10
        before = service.routed(wish).model
        async with slot.lease():
            assert cold.stats()["load_s"] == 0
            return [before, service.routed(wish).model]

    assert asyncio.run(run()) == ["large", "small"]


@dataclass(kw_only=True)
class Machine:
    """One variant on a machine that answers so many at once, first come first served."""

    candidate: Candidate
    slots: int
    busy: list[float] = field(default_factory=list)
    """When each answer that runs or waits ends."""

    def seen(self, now_s: float) -> Candidate:
        while self.busy and self.busy[0] <= now_s:
            heapq.heappop(self.busy)
        there = len(self.busy)
        load = {"running": float(min(there, self.slots)), "waiting": float(max(0, there - self.slots))}
        return Candidate(
            can=self.candidate.can,
            price=self.candidate.price,
            quality=self.candidate.quality,
            speed=self.candidate.speed,
            load=load,
        )

    def serve(self, now_s: float, prompt: int, tokens: int) -> float:
        """When the answer ends."""
        speed = self.candidate.speed
        assert speed is not None
        begins = (
            now_s if len(self.busy) < self.slots else heapq.nsmallest(len(self.busy), self.busy)[-self.slots]
        )
        ends = max(now_s, begins) + speed.first_s(prompt) + tokens * speed.token_s
        heapq.heappush(self.busy, ends)
        return ends


def replay(router: ModelRouter, model: str, *, slots: int = 128) -> tuple[float, float, list[float]]:
    """Money, share of requests that miss accuracy or deadline, and the seconds of each decision."""
    machines = {
        "small": Machine(candidate=variant(0.5, 1, 0.01), slots=slots),
        "middle": Machine(candidate=variant(0.7, 5, 0.025), slots=slots),
        "large": Machine(candidate=variant(0.9, 20, 0.05), slots=slots),
    }
    chance, money, missed, taken = random.Random(0), 0.0, 0, list[float]()
    with AZURE.open(encoding="utf-8") as file:
        for row in itertools.islice(csv.DictReader(file), 3000):
            at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            prompt, tokens = int(row["ContextTokens"]), max(1, int(row["GeneratedTokens"]))
            quality, per_token_s = chance.choice(((0.4, 0.1), (0.65, 0.1), (0.85, 0.2)))
            wish = wanting(quality, 2.0 + per_token_s * tokens, tokens)
            known = {name: machine.seen(at_s) for name, machine in machines.items()}
            asked = state(known, model=model, messages=None, text="word " * (prompt * 4 // 5), context=wish)
            began = time.perf_counter()
            chosen, _ = router.route(asked)
            taken.append(time.perf_counter() - began)
            ends = machines[chosen].serve(at_s, prompt, tokens)
            late = ends - at_s > (wish.objective.deadline_s or 0)
            missed += late or (known[chosen].quality or 0) < quality
            money += known[chosen].price.at_most(prompt, tokens)
    return money, missed / len(taken), taken


@pytest.mark.row("ms-infaas", "effect", claims=(1,))
@pytest.mark.skipif(not AZURE.exists(), reason=f"there is no {AZURE.name} in shared/data")
def test_variants_cost_less_than_the_best_one_and_miss_no_more(measured: Measure) -> None:
    best, best_missed, _ = replay(Fixed(), "large")
    money, missed, _ = replay(Infaas(), "")
    measured("cost of that of the best variant alone", money / best, at_most=0.7, unit="x")
    measured("share of violations over the best variant's", missed - best_missed, at_most=0.0)


@pytest.mark.slow
@pytest.mark.row("ms-infaas", "effect", claims=(2,))
@pytest.mark.skipif(not AZURE.exists(), reason=f"there is no {AZURE.name} in shared/data")
def test_a_decision_takes_less_than_fifty_milliseconds(measured: Measure) -> None:
    _, _, taken = replay(Infaas(), "")
    measured("median decision", statistics.median(taken), at_most=0.05, unit="s")
