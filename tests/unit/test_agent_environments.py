"""Environments: what every registered one keeps to, and that a replayed run does nothing again."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent_support import call, context, harness, run, spec
from pentad import registry
from pentad.agent.environment.base import Environment, EnvironmentServices, World
from pentad.agent.environment.local import Local
from pentad.agent.environment.recorded import Recorded, canonical
from pentad.agent.environment.replay import agreement, replay, replayed
from pentad.agent.events import Record
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.agent.spec_check import check_strategies
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build, options_of
from pentad.errors import Incompatible, InvalidRequest, NotFound, ToolFailed
from pentad.types import Budget

EFFECTS: list[str] = []


@tool
def pay(who: str) -> str:
    """Pays somebody."""
    EFFECTS.append(who)
    if who == "nobody":
        raise ToolFailed("there is nobody")
    return f"paid {who}, receipt {len(EFFECTS)}"


TURNS = [
    [call("pay", "a", who="Ada")],
    [call("pay", "b", who="Ada"), call("pay", "c", who="nobody")],
    ["Ada has been paid twice."],
]
AGENT = spec(tools=("pay",), budget=Budget(tool_calls=9))


@pytest.fixture(autouse=True)
def no_effects_before() -> Iterator[None]:
    EFFECTS.clear()
    yield
    EFFECTS.clear()


def records_of(path: pathlib.Path) -> list[Record]:
    """The records of a run that paid twice and failed once."""

    async def scenario() -> list[Record]:
        async with harness(path, TURNS, [pay]) as h:
            state = await h.work(AGENT, "pay Ada twice")
            assert state.status == "answered"
            return h.records(state.run_id)

    return run(scenario())


@pytest.fixture
def recorded(tmp_path: pathlib.Path) -> list[Record]:
    return records_of(tmp_path)


def services(records: Sequence[Record]) -> EnvironmentServices:
    async def read(run_id: str) -> Sequence[Record]:
        if run_id != records[0].run_id:
            raise NotFound(f"no run {run_id!r}")
        return records

    return EnvironmentServices(state=RunState(run_id="new", spec=AGENT, goal="g", tenant="t"), read=read)


def environment_of(name: str, records: Sequence[Record]) -> Environment:
    takes_run = "run" in options_of(registry.load("environment", name))
    options = {"run": records[0].run_id} if takes_run else {}
    made: Environment = build("environment", Choice(name=name, options=options))
    return made


def results(world: World, *names: str) -> list[str]:
    """What paying these says, in the world; failures by their message. Nothing where it is paid for real."""
    acting, said = world.tools({"pay": pay})["pay"], list[str]()
    for name in names if acting is not pay else ():
        try:
            said.append(str(run(acting.call({"who": name}, context()))))
        except ToolFailed as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("name", registry.known("environment"))
class TestEveryEnvironment:
    def test_tools_keep_their_names_and_schemas(self, name: str, recorded: list[Record]) -> None:
        world = run(environment_of(name, recorded).open(services(recorded)))
        own = {"pay": pay, "other": replace(pay, name="other")}
        acting = world.tools(own)
        for key, tool_ in own.items():
            assert (acting[key].name, acting[key].description, acting[key].parameters) == (
                tool_.name,
                tool_.description,
                tool_.parameters,
            )
        assert {*acting} == {*own, *world.tools({})}
        assert all(made.name == key for key, made in world.tools({}).items())
        assert isinstance(world.observe(), str)

    def test_a_world_can_be_put_back_where_it_says_so_and_refuses_with_a_remedy_where_not(
        self, name: str, recorded: list[Record]
    ) -> None:
        environment = environment_of(name, recorded)
        world = run(environment.open(services(recorded)))
        if "snapshot" in environment.can:
            results(world, "Ada")
            snapshot = world.snapshot()
            after = results(world, "Ada", "Ada")
            world.restore(snapshot)
            assert results(world, "Ada", "Ada") == after
        else:
            for refused in (world.snapshot, lambda: world.restore({})):
                with pytest.raises(Incompatible) as caught:
                    refused()
                assert "recorded" in str(caught.value)
        if "reset" in environment.can:
            world.reset(1)
            first = results(world, "Ada", "nobody")
            world.reset(1)
            assert results(world, "Ada", "nobody") == first
        else:
            with pytest.raises(Incompatible, match="cannot reset"):
                world.reset(1)
        if "score" in environment.can:
            assert 0 <= world.score().value <= 1
            assert world.score().about
        else:
            with pytest.raises(Incompatible, match="cannot score"):
                world.score()

    def test_two_worlds_do_not_meet(self, name: str, recorded: list[Record]) -> None:
        environment = environment_of(name, recorded)
        one, other = (run(environment.open(services(recorded))) for _ in range(2))
        if "snapshot" in environment.can:
            before = other.snapshot()
            results(one, "Ada")
            assert other.snapshot() == before


def test_local_tools_are_the_tools_themselves() -> None:
    empty = EnvironmentServices(state=RunState(run_id="r", spec=AGENT, goal="", tenant="t"), read=never)
    assert run(Local().open(empty)).tools({"pay": pay})["pay"] is pay


async def never(run_id: str) -> Sequence[Record]:
    raise AssertionError(f"{run_id} was read")


class TestRecorded:
    def world(self, records: Sequence[Record]) -> World:
        return run(Recorded(run=records[0].run_id).open(services(records)))

    def test_calls_have_the_results_that_they_had_one_after_another(self, recorded: list[Record]) -> None:
        done = len(EFFECTS)
        world = self.world(recorded)
        said = results(world, "Ada", "nobody", "Ada", "Ada", "Bob")
        assert said[:4] == [
            "paid Ada, receipt 1",
            "there is nobody",
            "paid Ada, receipt 2",
            "paid Ada, receipt 2",
        ]
        assert "has no such call of 'pay'" in said[4]
        assert len(EFFECTS) == done == 3, "nothing was done again"
        score = world.score()
        assert score.value == 1.0
        assert score.about == "3 of 3 recorded calls were made again, 1 calls were not recorded"

    def test_arguments_are_the_same_however_they_are_written(self) -> None:
        assert canonical('{"b": 1, "a": [2]}') == canonical('{ "a":[2],"b":1 }')
        assert canonical("") == canonical("{}")
        assert canonical("{broken") == "{broken"

    def test_acting_costs_nothing_and_may_be_repeated(self, recorded: list[Record]) -> None:
        acting = self.world(recorded).tools({"pay": replace(pay, cost=2.0)})["pay"]
        assert (acting.effects, acting.cost) == ("none", 0.0)

    def test_a_run_that_is_not_there_or_not_named_is_refused(self, recorded: list[Record]) -> None:
        with pytest.raises(NotFound):
            run(Recorded(run="run_other").open(services(recorded)))
        with pytest.raises(InvalidRequest, match=r"none is named.*pentad runs replay"):
            check_strategies(spec(environment=Choice(name="recorded")))


class TestReplayedRuns:
    def test_a_run_goes_again_with_the_same_results_and_no_effect(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, TURNS * 2, [pay]) as h:
                old = await h.work(AGENT, "pay Ada twice")
                effects = list(EFFECTS)
                new_id = await replay(h.runtime, old.run_id)
                new = await h.runtime.wait(new_id)
                assert effects == EFFECTS
                assert (new.status, new.answer) == (old.status, old.answer)
                told = [
                    [r.event.content for r in h.records(i) if isinstance(r.event, ToolReturned)]
                    for i in (old.run_id, new_id)
                ]
                assert told[0] == told[1]
                assert new.goal == old.goal
                assert new.ledger.budget == old.ledger.budget
                score = await agreement(h.runtime, new_id)
                assert score.about == "3 of 3 recorded calls were made again, 0 calls were not recorded"

        run(scenario())

    def test_another_way_through_is_seen_in_the_score(self, tmp_path: pathlib.Path) -> None:
        other = [[call("pay", "a", who="Bob")], ["I could not."]]

        async def scenario() -> None:
            async with harness(tmp_path, [*TURNS, *other], [pay]) as h:
                old = await h.work(AGENT, "pay Ada twice")
                new_id = await replay(h.runtime, old.run_id)
                await h.runtime.wait(new_id)
                score = await agreement(h.runtime, new_id)
                assert (score.value, EFFECTS) == (0.0, ["Ada", "Ada", "nobody"])

        run(scenario())

    def test_it_goes_on_after_a_crash_where_it_stood(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            blocked = asyncio.Event()
            async with harness(tmp_path, [*TURNS, TURNS[0], [blocked]], [pay]) as h:
                old = await h.work(AGENT, "pay Ada twice")
                new_id = await replay(h.runtime, old.run_id)
                async for record in h.runtime.events(new_id):
                    if record.kind == "model_asked" and record.event.step == 2:  # type: ignore[union-attr]
                        break
            async with harness(tmp_path, TURNS[1:], [pay]) as h:
                await h.runtime.resume(new_id)
                new = await h.runtime.wait(new_id)
                assert new.exchanges[1].results[0].content == "paid Ada, receipt 2"
                assert (await agreement(h.runtime, new_id)).value == 1.0
                assert EFFECTS == ["Ada", "Ada", "nobody"]

        run(scenario())

    def test_runs_of_other_tenants_are_not_replayed(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [*TURNS, ["done"]], [pay]) as h:
                theirs = await h.work(AGENT, "pay", tenant="a")
                with pytest.raises(NotFound):
                    await replay(h.runtime, theirs.run_id, tenant="b")
                spy = replayed(AGENT, theirs.run_id)
                state = await h.work(spy, "spy", tenant="b")
                assert state.status == "failed"
                assert "no run" in (state.error or "")

        run(scenario())

    def test_what_a_person_denied_is_denied_again_and_nobody_is_asked(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            agent = replace(AGENT, ask=("pay",))
            turns = [[call("pay", who="Ada")], ["Not allowed."]]
            async with harness(tmp_path, turns * 2, [pay]) as h:
                run_id = await h.runtime.start(agent, "pay")
                async for record in h.runtime.events(run_id):
                    if record.kind == "approval_asked":
                        asked: Any = record.event
                        await h.runtime.answer(run_id, asked.approval_id, approved=False, note="too much")
                old = await h.runtime.wait(run_id)
                new = await h.runtime.wait(await replay(h.runtime, run_id))
                assert old.exchanges[0].results[0].status == "denied"
                result = new.exchanges[0].results[0]
                assert (result.status, result.content) == ("denied", old.exchanges[0].results[0].content)
                assert not any(r.kind == "approval_asked" for r in h.records(new.run_id))
                assert EFFECTS == []

        run(scenario())


def test_a_replayed_agent_acts_nowhere_with_its_team() -> None:
    member = spec(name="member", tools=("pay",), ask=("pay",))
    memory = MemoryChoice(long_term=LongTermChoice())
    agent = spec(agents={"member": member}, coordinator=Choice(name="supervisor"), memory=memory, ask=("*",))
    made = replayed(agent, "run_x")
    for each in (made, made.agents["member"]):
        assert each.environment == Choice(name="recorded", options={"run": "run_x"})
        assert each.ask == ()
    assert made.memory.long_term is not None
    assert not made.memory.long_term.episodes
