"""New runs wait while the KV cache is full with what others need: no longer, and nobody for ever."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent import run_hold
from pentad.agent.limits import RuntimeLimits
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.errors import InvalidRequest


class Cache:
    """The KV cache of the scripted model, and a run that is in its tool meanwhile."""

    def __init__(self, claimed: float) -> None:
        self.claimed = claimed
        self.inside, self.go_on = asyncio.Event(), asyncio.Event()

    def stats(self) -> dict[str, float]:
        return {"kv_claimed_fraction": self.claimed, "kv_usage_fraction": 0.0}

    def tool(self) -> Tool:
        @tool(effects="none")
        async def look() -> str:
            """Looks for a while."""
            self.inside.set()
            await self.go_on.wait()
            return "seen"

        return look

    async def occupy(self, h: Harness) -> str:
        """Has a run begun that stays under way."""
        h.backend.stats = self.stats  # type: ignore[method-assign]
        run_id = await h.runtime.start(spec(tools=("look",)), "first")
        await self.inside.wait()
        return run_id


def limits(**fields: float) -> RuntimeLimits:
    return RuntimeLimits(**{"hold_runs_above": 0.8, **fields})  # type: ignore[arg-type]


def held_s(h: Harness, run_id: str) -> float:
    parts = [part for share in h.runtime.explain(run_id).shares for part in share.parts]
    return sum(seconds for name, seconds in parts if name == run_hold.HELD)


def test_a_new_run_waits_until_the_cache_has_room(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        cache = Cache(0.9)
        turns = [[call("look")], ["second"], ["first"]]
        async with harness(tmp_path, turns, [cache.tool()], limits=limits()) as h:
            first = await cache.occupy(h)
            second = await h.runtime.start(spec(), "second")
            await asyncio.sleep(5 * run_hold._LOOK_S)
            assert len(h.backend.requests) == 1, "only the first run has asked the model"
            cache.claimed = 0.2
            assert (await h.runtime.wait(second)).answer == "second"
            assert held_s(h, second) >= 5 * run_hold._LOOK_S
            cache.claimed = 1.0
            cache.go_on.set()
            assert (await h.runtime.wait(first)).answer == "first", "who has begun goes on"

    run(scenario())


def test_runs_begin_one_after_the_other_while_there_is_little_room(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_hold, "_SHOWS_S", 0.3)

    async def scenario() -> None:
        cache = Cache(0.5)
        turns = [[call("look")], ["a"], ["b"], ["first"]]
        async with harness(tmp_path, turns, [cache.tool()], limits=limits()) as h:
            first = await cache.occupy(h)
            others = [await h.runtime.start(spec(), goal) for goal in ("a", "b")]
            for other in others:
                assert (await h.runtime.wait(other)).status == "answered"
            assert held_s(h, others[1]) >= 0.3, "the one before must show in the cache first"
            cache.go_on.set()
            await h.runtime.wait(first)

    run(scenario())


def test_nobody_waits_for_longer_than_is_set_or_for_nobody(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        cache = Cache(1.0)
        turns = [[call("look")], ["second"], ["first"], ["alone"]]
        async with harness(tmp_path, turns, [cache.tool()], limits=limits(hold_runs_s=0.2)) as h:
            first = await cache.occupy(h)
            second = await h.runtime.start(spec(), "second")
            assert (await h.runtime.wait(second)).answer == "second"
            assert held_s(h, second) >= 0.2
            cache.go_on.set()
            await h.runtime.wait(first)
            alone = await h.work(spec(), "alone")
            assert alone.answer == "alone"
            assert held_s(h, alone.run_id) == 0

    run(scenario())


def test_a_run_that_is_held_can_be_cancelled(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        cache = Cache(1.0)
        async with harness(tmp_path, [[call("look")], ["first"]], [cache.tool()], limits=limits()) as h:
            first = await cache.occupy(h)
            second = await h.runtime.start(spec(), "second")
            await asyncio.sleep(2 * run_hold._LOOK_S)
            await h.runtime.cancel(second)
            assert (await h.runtime.wait(second)).status == "cancelled"
            cache.go_on.set()
            assert (await h.runtime.wait(first)).answer == "first"

    run(scenario())


def test_a_share_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="hold_runs_above"):
        Harness(tmp_path, [], limits=limits(hold_runs_above=0.0))
