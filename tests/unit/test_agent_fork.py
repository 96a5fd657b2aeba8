"""Forks: a new run that has done what an old one had before a step."""

from __future__ import annotations

import pathlib

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.events import Origin
from pentad.agent.tools.functions import tool
from pentad.errors import InvalidRequest, ModelNotFound, NotFound
from pentad.types import Budget

TURNS = [[call("count", number=1)], [call("count", number=2)], ["three"]]


def test_a_fork_goes_on_from_its_step_and_repeats_no_effect(tmp_path: pathlib.Path) -> None:
    made: list[int] = []

    @tool
    def count(number: int) -> str:
        """Counts."""
        made.append(number)
        return str(number)

    async def scenario() -> None:
        turns = [*TURNS, [call("count", number=7)], ["seven"]]
        async with harness(tmp_path, turns, [count]) as h:
            old = await h.work(spec(tools=("count",)))
            assert (old.status, made) == ("answered", [1, 2])
            new_id = await h.runtime.fork(old.run_id, 2)
            new = await h.runtime.wait(new_id)
            assert (new.status, new.answer, made) == ("answered", "seven", [1, 2, 7])
            assert new.forked_from == Origin(run_id=old.run_id, step=2)
            assert new.exchanges[0].results == old.exchanges[0].results
            assert new.totals.model_calls == 3
            assert [e.step for e in new.closed] == [1, 2, 3]
            assert h.runtime.show(old.run_id) == old
            # What the copied step used counts.
            assert new.ledger.used.tool_calls == 2
            asked = h.runtime.prompts(new_id)
            assert [prompt.text is not None for prompt in asked] == [True] * 3
            assert asked[0] == h.runtime.prompts(old.run_id)[0]
            explained = h.runtime.explain(new_id)
            assert explained.residual_s >= 0

    run(scenario())


def test_a_fork_may_have_another_goal_and_model(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["one"], ["two"]]) as h:
            old = await h.work(spec(), "first")
            new_id = await h.runtime.fork(old.run_id, 1, goal="second", model="scripted")
            new = await h.runtime.wait(new_id)
            assert (new.goal, new.spec.model, new.answer) == ("second", "scripted", "two")
            assert h.backend.requests[-1].messages[-1].content == "second"
            with pytest.raises(ModelNotFound, match="no model 'none'; served: scripted"):
                await h.runtime.fork(old.run_id, 1, model="none")

    run(scenario())


def test_a_fork_begins_at_a_step_that_the_run_came_to(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["one"]]) as h:
            old = await h.work(spec(budget=Budget(tokens=1000)))
            for step in (0, 2, 99):
                with pytest.raises(InvalidRequest, match="can be forked at 1 to 1"):
                    await h.runtime.fork(old.run_id, step)
            with pytest.raises(NotFound):
                await h.runtime.fork(old.run_id, 1, tenant="another")
            assert len(h.runtime.list()) == 1

    run(scenario())


def test_a_run_can_think_with_another_model_than_its_agents(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["one"]]) as h:
            state = await h.work(spec(model="elsewhere"), model="scripted")
            assert (state.status, state.spec.model) == ("answered", "scripted")
            with pytest.raises(ModelNotFound, match="served: scripted"):
                await h.work(spec(), model="none")

    run(scenario())
