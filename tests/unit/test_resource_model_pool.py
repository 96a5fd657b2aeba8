"""Many models within one budget: who comes, who leaves, who waits, and that no sum passes the budget."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pentad.choice import Choice, build
from pentad.errors import BackendFailed, Infeasible, Overloaded, Unavailable
from pentad.resource.eviction.base import EvictionPolicy, Resident, choose_victims
from pentad.resource.eviction.least_recent import LeastRecent
from pentad.resource.eviction.recent_cost import RecentCost
from pentad.resource.model_pool import ModelPool
from pentad.resource.model_slot import MemoryNeed, ModelSlot

PATIENCE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Machine:
    """Models of given sizes whose loads can be held up or made to fail, and what is loaded at once."""

    def __init__(self, budget: int, *, patience_s: float = 60.0, grace_s: float = 0.0) -> None:
        self.clock = Clock()
        self.pool = ModelPool(
            budget_bytes=budget,
            policy=LeastRecent(),
            clock=self.clock,
            patience_s=patience_s,
            grace_s=grace_s,
        )
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.failures: dict[str, Exception] = {}

    def add(self, name: str, size: int, **options: Any) -> ModelSlot[str]:
        def load() -> str:
            if (gate := self.gates.get(name)) is not None:
                assert gate.wait(PATIENCE_S)
            if (failure := self.failures.pop(name, None)) is not None:
                raise failure
            self.loads.append(name)
            return name

        async def unload(value: str) -> None:
            self.unloads.append(value)

        return self.pool.add(name, need=MemoryNeed(weights_bytes=size), load=load, unload=unload, **options)


async def use(slot: ModelSlot[str], **options: Any) -> str:
    async with slot.lease(**options) as value:
        return value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - states of several objects
            await asyncio.sleep(0.002)


def test_a_model_is_loaded_by_its_first_request_alone_and_the_least_recently_used_leaves() -> None:
    async def run() -> None:
        machine = Machine(100)
        slots = {name: machine.add(name, 40) for name in "abc"}
        assert machine.loads == []
        for name in "abab":
            machine.clock.now_s += 1
            assert await use(slots[name]) == name
        assert machine.loads == ["a", "b"]
        await asyncio.gather(*(use(slots["c"]) for _ in range(5)))
        assert machine.loads == ["a", "b", "c"], "five requests, one load"
        assert machine.unloads == ["a"]
        assert [d.chosen for d in machine.pool.decisions] == ["a"]
        assert machine.pool.decisions[0].subject == "room for c"
        await machine.pool.close()
        assert sorted(machine.unloads) == ["a", "b", "c"]

    asyncio.run(run())


def test_a_loaded_model_answers_while_another_is_loaded() -> None:
    async def run() -> None:
        machine = Machine(100)
        hot, cold = machine.add("hot", 40), machine.add("cold", 40)
        await use(hot)
        gate = machine.gates["cold"] = threading.Event()
        waits = asyncio.create_task(use(cold))
        await until(lambda: cold.state == "loading")
        for _ in range(20):
            assert await asyncio.wait_for(use(hot), 1.0) == "hot"
        assert not waits.done()
        assert "'cold' is loaded, 0 s" in str(cold.progress())
        gate.set()
        assert await waits == "cold"
        assert cold.progress() is None
        await machine.pool.close()

    asyncio.run(run())


def test_a_model_with_requests_leaves_for_none_until_one_has_waited_long_and_then_ends_them_first() -> None:
    async def run() -> None:
        machine = Machine(100, patience_s=30.0)
        busy, other = machine.add("busy", 70), machine.add("other", 70)
        done = asyncio.Event()

        async def long() -> None:
            async with busy.lease():
                await done.wait()

        running = asyncio.create_task(long())
        await until(lambda: busy.users == 1)
        waits = asyncio.create_task(use(other))
        await asyncio.sleep(0.02)
        assert (busy.state, other.state) == ("loaded", "queued")
        assert "'other' waits for memory" in str(other.progress())
        assert await use(busy) == "busy"
        machine.clock.now_s = 31.0
        await use(busy)
        await until(lambda: busy.state == "draining")
        late = asyncio.create_task(use(busy))
        await asyncio.sleep(0.01)
        assert machine.unloads == [], "its request has not ended"
        done.set()
        await running
        assert await waits == "other"
        assert await late == "busy", "it is loaded again for who came meanwhile"
        assert machine.loads == ["busy", "other", "busy"]
        await machine.pool.close()

    asyncio.run(run())


def test_what_never_fits_is_refused_with_the_numbers() -> None:
    async def run() -> None:
        machine = Machine(3_000_000)
        need = MemoryNeed(weights_bytes=2_000_000, kv_bytes=2_000_000)

        async def unload(_: str) -> None: ...

        slot = machine.pool.add("big", need=need, load=lambda: "big", unload=unload)
        with pytest.raises(Infeasible, match=r"needs 4 MB \(weights 2 MB \+ KV cache 2 MB\), all .* 3 MB"):
            await use(slot)
        assert slot.state == "unloaded"
        await machine.pool.close()

    asyncio.run(run())


def test_a_failed_load_is_told_with_its_reason_and_the_others_live_on() -> None:
    async def run() -> None:
        machine = Machine(100)
        good, bad = machine.add("good", 40), machine.add("bad", 40)
        await use(good)
        machine.failures["bad"] = BackendFailed("no such tensor", hint="fetch it again")
        told = await asyncio.gather(use(bad), use(bad), return_exceptions=True)
        for error in told:
            assert isinstance(error, Unavailable)
            assert str(error) == "model 'bad' cannot be loaded: no such tensor; fetch it again"
        with pytest.raises(Unavailable, match="no such tensor"):
            await use(bad)
        assert machine.loads == ["good"], "it is not tried again at once"
        assert await use(good) == "good"
        machine.clock.now_s += 6
        assert await use(bad) == "bad"
        await machine.pool.close()

    asyncio.run(run())


def test_who_goes_away_while_waiting_for_room_frees_the_place_in_the_queue() -> None:
    async def run() -> None:
        machine = Machine(100)
        busy, big, small = machine.add("busy", 60), machine.add("big", 80), machine.add("small", 30)
        async with busy.lease():
            first = asyncio.create_task(use(big))
            await until(lambda: big.state == "queued")
            second = asyncio.create_task(use(small))
            await until(lambda: small.state == "queued")
            first.cancel()
            assert await second == "small"
            assert big.state == "unloaded"
            assert big.waiting == 0
        assert machine.unloads == [], "nobody left for a request that had gone"
        await machine.pool.close()

    asyncio.run(run())


def test_too_many_that_wait_are_refused() -> None:
    async def run() -> None:
        machine = Machine(100)
        slot = machine.add("m", 40, max_waiting=2)
        gate = machine.gates["m"] = threading.Event()
        waiting = [asyncio.create_task(use(slot)) for _ in range(2)]
        await until(lambda: slot.waiting == 2)
        with pytest.raises(Overloaded, match="2 requests wait for model 'm' to be loaded"):
            await use(slot)
        gate.set()
        assert await asyncio.gather(*waiting) == ["m", "m"]
        await machine.pool.close()

    asyncio.run(run())


def test_a_model_leaves_after_its_time_and_at_once_where_it_is_zero() -> None:
    async def run() -> None:
        machine = Machine(100)
        brief, short = machine.add("brief", 10, keep_s=0.0), machine.add("short", 10)
        assert await use(brief) == "brief"
        await until(lambda: brief.state == "unloaded")
        await use(short, keep_s=0.02)
        machine.clock.now_s += 1
        await until(lambda: short.state == "unloaded")
        await use(short, keep_s=None)
        machine.clock.now_s += 1000
        await asyncio.sleep(0.03)
        assert short.state == "loaded"
        await machine.pool.close()

    asyncio.run(run())


def test_a_model_is_loaded_and_unloaded_on_request_and_gone_with_its_place() -> None:
    async def run() -> None:
        machine = Machine(100)
        slot = machine.add("m", 40)
        await machine.pool.load("m")
        assert slot.state == "loaded"
        async with slot.lease():
            gone = asyncio.create_task(machine.pool.unload("m"))
            await asyncio.sleep(0.03)
            assert (slot.state, gone.done()) == ("draining", False)
        await gone
        assert machine.pool.booked_bytes == 0
        await machine.pool.remove("m")
        assert "m" not in machine.pool.slots
        await machine.pool.close()

    asyncio.run(run())


def test_at_the_end_who_waits_is_told() -> None:
    async def run() -> None:
        machine = Machine(100)
        busy, other = machine.add("busy", 70), machine.add("other", 70)
        async with busy.lease():
            waits = asyncio.create_task(use(other))
            await until(lambda: other.state == "queued")
            await machine.pool.close()
            with pytest.raises(Unavailable, match="the server stops"):
                await waits
        with pytest.raises(Unavailable, match="the server stops"):
            await use(other)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(6))
def test_random_requests_are_all_answered_and_the_sum_never_passes_the_budget(seed: int) -> None:
    dice = random.Random(seed)

    async def run() -> None:
        machine = Machine(100, patience_s=0.05)
        machine.clock = asyncio.get_running_loop().time  # type: ignore[assignment]
        machine.pool.clock = machine.clock
        slots = [machine.add(str(i), dice.randint(20, 90), keep_s=dice.choice([None, 0.0])) for i in range(5)]
        most = 0

        async def one() -> None:
            nonlocal most
            await asyncio.sleep(dice.random() / 5)
            slot = dice.choice(slots)
            async with slot.lease() as value:
                assert value == slot.name
                assert slot.state in ("loaded", "draining")
                most = max(most, machine.pool.booked_bytes)
                await asyncio.sleep(dice.random() / 200)

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(one() for _ in range(120)))
        assert 0 < most <= 100
        await machine.pool.close()
        assert sorted(machine.loads) == sorted(machine.unloads)

    asyncio.run(run())


def resident(name: str, size: int, idle_s: float, load_s: float) -> Resident:
    return Resident(name=name, size_bytes=size, idle_s=idle_s, load_s=load_s)


def test_of_two_equally_recent_models_the_one_that_loads_faster_for_its_size_leaves() -> None:
    policy: EvictionPolicy = build("eviction", Choice(name="recent-cost"))
    models = [resident("slow", 100, 60, 20), resident("quick", 100, 60, 2), resident("fresh", 100, 1, 2)]
    assert choose_victims(policy, models, 50, wanted="x", now_s=0)[0] == ("quick",)
    assert choose_victims(policy, models, 150, wanted="x", now_s=0)[0] == ("quick", "slow")
    baseline = choose_victims(LeastRecent(), models[::-1], 50, wanted="x", now_s=0)
    assert baseline[0] == ("quick",)
    older = [resident("dear", 100, 70, 20), resident("cheap", 100, 60, 2)]
    assert choose_victims(LeastRecent(), older, 50, wanted="x", now_s=0)[0] == ("dear",)
    assert choose_victims(RecentCost(), older, 50, wanted="x", now_s=0)[0] == ("cheap",)


def test_nobody_leaves_in_vain() -> None:
    models = [resident("a", 10, 30, 1), resident("b", 80, 20, 1)]
    names, decision = choose_victims(LeastRecent(), models, 60, wanted="x", now_s=3.0)
    assert names == ("b",), "with b gone, a need not go"
    assert (decision.chosen, decision.at_s) == ("b", 3.0)
    names, decision = choose_victims(LeastRecent(), models, 100, wanted="x", now_s=0)
    assert names == ()
    assert decision.constraint == "memory"
