"""Retention: what a run announced to need again outlives what nobody did, within a share of the pool."""

from __future__ import annotations

from typing import Any

import pytest

from pentad.execution.engine import Engine
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request
from pentad.testing.runners import ToyRunner
from pentad.types import Decision, Hints, RunContext

BLOCKS = 16
BLOCK = 4


class World:
    """An engine of 16 blocks of 4 tokens, and a clock that stands."""

    def __init__(self, *, kept_fraction: float = 0.5) -> None:
        self.now_s = 100.0
        self.engine = Engine(
            ToyRunner(num_blocks=BLOCKS, block_size=BLOCK),
            Sarathi(),
            limits=EngineLimits(max_batch_tokens=64, max_sequences=4, kept_fraction=kept_fraction),
            clock=lambda: self.now_s,
            check_invariants=True,
        )

    def ask(
        self,
        name: str,
        blocks: int = 3,
        *,
        tenant: str = "default",
        context: RunContext | None = None,
        **fields: Any,
    ) -> Answer:
        """A request whose prompt and answer fill so many blocks, but for the last token, and its answer."""
        request = token_request(
            f"{name}/0", text(name, blocks), 3, tenant=tenant, context=context or RunContext(**fields)
        )
        return run(self.engine, request)[request.id]

    def cached(self, name: str, blocks: int = 3, *, tenant: str = "default") -> bool:
        """Whether all full blocks of an earlier request's prompt are still there."""
        prefix = self.engine._kv.prefix
        assert prefix is not None
        keys: list[bytes] = []
        prefix.extend(keys, prefix.root(tenant, ""), text(name, blocks), blocks - 1)
        return len(prefix.find(keys, blocks)) == blocks - 1

    def fill(self, blocks: int = BLOCKS - 4) -> Answer:
        """A request that needs most blocks."""
        return self.ask("~fill", blocks)


def text(name: str, blocks: int) -> list[int]:
    """A prompt that together with three tokens fills so many blocks."""
    first = sum(map(ord, name))
    return [first % 97, *((first + 7 * i) % 97 for i in range(blocks * BLOCK - 3))]


def decisions(answer: Answer, subject: str) -> list[Decision]:
    assert answer.stats is not None
    return [d for d in answer.stats.decisions if (d.policy, d.subject) == ("retention", subject)]


TOOL = Hints(next="tool")


def test_what_comes_back_after_a_tool_outlives_what_was_used_later() -> None:
    world = World()
    kept = world.ask("a", hints=TOOL)
    world.ask("b")
    world.fill()
    assert (world.cached("a"), world.cached("b")) == (True, False)
    (decision,) = decisions(kept, "keep")
    assert (decision.chosen, decision.candidates, decision.constraint) == ("kept", (("a/0", 5.0),), None)


def test_without_hints_the_least_recently_used_goes_first() -> None:
    world = World()
    world.ask("a")
    world.ask("b")
    world.fill()
    assert (world.cached("b"), world.cached("a")) == (True, False)


def test_nothing_is_kept_where_nothing_may_be() -> None:
    world = World(kept_fraction=0.0)
    assert decisions(world.ask("a", hints=TOOL), "keep") == []
    assert "kv_keeps" not in world.engine.stats()


def test_kept_blocks_give_way_when_all_are_needed_farthest_use_first() -> None:
    world = World()
    world.ask("near", hints=Hints(tool_s=1.0))
    world.ask("far", hints=Hints(tool_s=60.0))
    answer = world.fill(BLOCKS - 4)
    (decision,) = decisions(answer, "evict")
    assert (decision.chosen, decision.constraint) == ("far/0", "free_blocks")
    assert decision.candidates == (("near/0", 1.0), ("far/0", 60.0))
    assert world.engine.stats()["kv_keeps_dropped_total"] == 1
    assert world.cached("near")


def test_a_keep_is_used_up_by_the_next_request_of_the_run_or_by_one_that_names_it() -> None:
    for context, used in [
        ({"run_id": "r"}, True),
        ({"run_id": "x"}, False),
        ({"parent": "a"}, True),
        ({"parent": "b", "run_id": "r"}, False),
        ({}, False),
    ]:
        world = World()
        world.ask("a", hints=TOOL, run_id="r")
        world.ask("next", 1, **context)  # type: ignore[arg-type]
        assert (world.engine.stats()["kv_keeps"] == 0) is used, context


def test_a_fan_out_is_used_up_by_so_many_requests() -> None:
    world = World()
    world.ask("a", hints=Hints(fan_out=2))
    world.ask("one", 1, parent="a")
    stats = world.engine.stats()
    assert stats["kv_keeps"] == 1
    assert stats["kv_claimed_fraction"] == stats["kv_blocks_kept"] / stats["kv_blocks"] > 0
    world.ask("two", 1, parent="a")
    assert world.engine.stats()["kv_keeps"] == 0
    assert world.engine.stats()["kv_claimed_fraction"] == 0


def test_the_end_of_a_run_lets_all_that_it_kept_go() -> None:
    world = World()
    world.ask("a", hints=Hints(fan_out=9), run_id="r")
    world.ask("b", 1, hints=Hints(next="end"), run_id="r")
    assert world.engine.stats()["kv_blocks_kept"] == 0


def test_a_keep_ends_when_its_time_has_long_passed() -> None:
    world = World()
    world.ask("a", hints=Hints(tool_s=1.0))
    world.ask("b")
    world.now_s += 3.5  # one second, and two of grace
    world.fill(BLOCKS - 1)
    assert world.engine.stats()["kv_keeps"] == 0


def test_pauses_are_learnt_by_tool_and_tenant() -> None:
    world = World()
    for i in range(12):
        world.ask("a", 1, hints=Hints(tool="slow"), run_id=f"r{i}")
        world.now_s += 40.0
        world.ask("b", 1, run_id=f"r{i}")
    (mine,) = decisions(world.ask("c", 1, hints=Hints(tool="slow")), "keep")
    (theirs,) = decisions(world.ask("d", 1, tenant="t", hints=Hints(tool="slow")), "keep")
    assert mine.candidates[0][1] == pytest.approx(40.0, abs=1.0)
    assert theirs.candidates[0][1] == 5.0


def test_no_more_than_the_share_is_kept_and_the_decision_says_so() -> None:
    world = World(kept_fraction=0.25)  # of 16 blocks 4
    world.ask("near", 3, hints=Hints(tool_s=1.0))
    answer = world.ask("far", 3, hints=Hints(tool_s=9.0))
    (decision,) = decisions(answer, "keep")
    assert (decision.chosen, decision.constraint) == ("kept in part", "kept_fraction")
    assert world.engine.stats()["kv_blocks_kept"] <= 4
    world.ask("soon", 3, hints=Hints(tool_s=0.1))
    assert world.engine.stats()["kv_keeps_dropped_total"] == 2, "the one used sooner takes the place"


def test_the_tenant_that_keeps_most_gives_way_first_and_is_not_named_to_others() -> None:
    world = World()
    world.ask("a", 3, tenant="greedy", hints=Hints(tool_s=0.1))
    world.ask("b", 3, tenant="greedy", hints=Hints(tool_s=0.2))
    world.ask("c", 2, tenant="modest", hints=Hints(tool_s=50.0))
    (decision,) = decisions(world.fill(), "evict")
    assert decision.chosen == "another tenant's"
    assert world.cached("c", blocks=2, tenant="modest")
    assert world.cached("a", blocks=3, tenant="greedy")


def test_what_is_needed_very_late_is_not_kept() -> None:
    world = World()
    (decision,) = decisions(world.ask("a", hints=Hints(tool_s=1e9)), "keep")
    assert (decision.chosen, decision.constraint) == ("not kept", "pause")
    assert world.engine.stats()["kv_blocks_kept"] == 0


def test_another_tenant_uses_nothing_up() -> None:
    world = World()
    world.ask("a", hints=TOOL, run_id="r")
    world.ask("b", 1, tenant="t", run_id="r", parent="a")
    assert world.engine.stats()["kv_keeps"] == 1


def test_a_cancelled_request_keeps_nothing() -> None:
    world = World()
    request = token_request("a/0", range(9), 50, context=RunContext(hints=TOOL))
    world.engine.add(request)
    world.engine.step()
    world.engine.cancel("a/0")
    world.engine.step()
    assert world.engine.stats()["kv_keeps"] == 0
