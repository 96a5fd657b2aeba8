"""Money and deadlines of runs bind as tokens do: reserved before a call, settled after it."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from agent_support import harness, run, spec
from pentad.agent.model_events import ModelAsked
from pentad.errors import Incompatible
from pentad.model.prices import Price
from pentad.types import Budget, Objective, Usage


@pytest.mark.row("ml-gemini", "mechanism", claims=(2,))
def test_money_is_reserved_before_a_call_and_ends_the_run_when_it_is_spent(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        used = Usage(prompt_tokens=10, completion_tokens=5)
        price = Price(prompt=1e6, completion=2e6)
        async with harness(tmp_path, [["hi", used]], repeat=True, price=price) as h:
            state = await h.work(spec(max_tokens=50), budget=Budget(cost=40.0))
            asked = next(r.event for r in h.records(state.run_id) if isinstance(r.event, ModelAsked))
            assert 0 < asked.reserved_cost <= 40.0
            assert asked.reserved_cost == price.at_most(
                asked.prompt_tokens, asked.reserved_tokens - asked.prompt_tokens
            )
            assert state.totals.cost == 10 * 1 + 5 * 2
            poor = await h.work(spec(max_tokens=50), budget=Budget(cost=0.5))
            assert poor.status == "budget_exceeded"
            assert "money are left" in (poor.error or "")
            assert poor.totals.model_calls == 0

    run(scenario())


def test_a_runs_deadline_and_cost_bind_it_and_unenforced_wishes_refuse_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[never]], repeat=True) as h:
            aim = Objective(deadline_s=0.1, max_cost=3.0)
            state = await h.work(spec(), objective=aim)
            assert state.status == "budget_exceeded"
            assert (state.ledger.budget.wall_s, state.ledger.budget.cost) == (0.1, 3.0)
            with pytest.raises(Incompatible, match="nothing here enforces it yet"):
                await h.runtime.start(spec(), "x", objective=Objective(min_quality=0.9))

    run(scenario())
