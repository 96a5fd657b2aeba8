"""TenantQuotas keep some of everything for every tenant, whatever the others hold."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad.application.gateway import GatewaySettings
from pentad.application.gateway import load as load_module
from pentad.application.gateway.load import Load
from pentad.errors import Overloaded
from pentad.resource.tenant_quotas import TenantQuotas


def shares(limit: int = 16, tenants: int = 2, share: float = 0.5) -> TenantQuotas:
    return TenantQuotas("things", "server.max_things", limit=limit, tenants=tenants, share=share)


def test_a_single_tenant_may_have_everything() -> None:
    all_of_it = shares(tenants=1)
    all_of_it.take("a", 16)
    with pytest.raises(Overloaded, match=r"16 of 16 are in use; .* raise server.max_things"):
        all_of_it.take("a")


def test_one_of_several_is_stopped_at_its_share() -> None:
    some = shares()
    some.take("a", 8)
    with pytest.raises(Overloaded, match=r"8 things are yours.* the most for one tenant is 8"):
        some.take("a")
    some.take("b", 8)


def test_a_tenant_gets_its_floor_even_when_others_have_taken_everything() -> None:
    some = shares(tenants=4)
    some.take("a", 8)
    some.take("b", 8)
    some.take("c", 2)
    with pytest.raises(Overloaded, match="all are taken"):
        some.take("c")
    some.take("d", 2)


@given(
    steps=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(1, 5)), max_size=60),
    limit=st.integers(1, 40),
    share=st.floats(0.01, 1),
)
def test_what_is_held_stays_within_its_bounds(
    steps: list[tuple[str, bool, int]], limit: int, share: float
) -> None:
    some = shares(limit, 4, share)
    held = dict.fromkeys("abcd", 0)
    for tenant, takes, count in steps:
        if takes and some.fits(tenant, count):
            some.take(tenant, count)
            held[tenant] += count
        elif not takes and held[tenant] >= count:
            some.give(tenant, count)
            held[tenant] -= count
        assert all(some.of(name) == count <= some.most for name, count in held.items())
        assert some.total == sum(held.values()) <= limit + 4 * some.floor
        if held[tenant] == 0:
            assert some.fits(tenant), "nobody who holds nothing is refused one"


# Memory of bodies


def bodies(limit: int = 100, keys: tuple[str, ...] = ()) -> Load:
    return Load(GatewaySettings(body_memory_bytes=limit, api_keys=keys), time.monotonic)


def test_bodies_that_do_not_fit_wait_in_turn_and_get_the_memory_back() -> None:
    async def run() -> list[str]:
        memory, order = bodies().bodies, []

        async def one(name: str, size: int) -> None:
            async with memory.hold("default", size):
                order.append(name)
                await asyncio.sleep(0)

        async with memory.hold("default", 60):
            tasks = [asyncio.create_task(one(name, size)) for name, size in (("big", 90), ("small", 10))]
            for _ in range(5):
                await asyncio.sleep(0)
            assert not order, "the small one does not overtake the one before it"
            gone = asyncio.create_task(one("gone", 50))
            await asyncio.sleep(0)
            gone.cancel()
        await asyncio.gather(*tasks, gone, return_exceptions=True)
        assert memory._shares.total == 0
        return order

    assert asyncio.run(run()) == ["big", "small"]


def test_one_tenants_bodies_never_hold_up_anothers() -> None:
    async def run() -> None:
        memory = bodies(keys=("a:1", "b:2")).bodies
        async with memory.hold("a", 50):
            waiting = asyncio.create_task(memory.hold("a", 10).__aenter__())
            await asyncio.sleep(0)
            async with asyncio.timeout(5), memory.hold("b", 50):
                assert not waiting.done()
            waiting.cancel()

    asyncio.run(run())


def test_a_body_that_never_fits_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "PATIENCE_S", 0.01)

    async def run() -> None:
        memory = bodies().bodies
        async with memory.hold("default", 100):
            with pytest.raises(Overloaded, match=r"server.body_memory_bytes"):
                async with memory.hold("default", 5):
                    pass
        assert memory._shares.total == 0
        assert not memory._waiting

    asyncio.run(run())


def test_refusals_are_paced_for_the_tenant_who_gets_many_and_for_no_other() -> None:
    now = 100.0
    pace = load_module.RefusalPace(lambda: now)
    delays = [pace.delay_s("greedy") for _ in range(60)]
    assert delays[:39] == [0.0] * 39
    assert delays[59] == pytest.approx(1.0)
    assert pace.delay_s("polite") == 0.0
    assert max(pace.delay_s("greedy") for _ in range(1000)) == 10.0
    now += 12.0
    assert pace.delay_s("greedy") == 0.0
