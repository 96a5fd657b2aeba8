"""Simulated worlds: the state is all, calls done again bring it back, and what fails changes nothing."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from agent_support import context, harness, run, spec
from pentad import registry
from pentad.agent.environment.base import EnvironmentServices
from pentad.agent.environment.simulated import Simulated, SimulatedWorld
from pentad.agent.evaluation.worlds import world_score
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, ToolFailed
from pentad.types import ToolCall

WORLDS = [
    name for name in registry.known("environment")
    if issubclass(registry.load("environment", name), Simulated)
]  # fmt: skip
SEEDS = range(25)


def world_of(name: str, seed: int = 0) -> SimulatedWorld:
    made: Simulated = build("environment", Choice(name=name, options={"seed": seed}))
    return made.world()


def perform(world: SimulatedWorld, tool: str, arguments: Any) -> str:
    return str(run(world.tools({})[tool].call(dict(arguments), context())))


@pytest.mark.parametrize("name", WORLDS)
class TestEveryWorld:
    def test_every_seed_can_be_solved_and_begins_unsolved(self, name: str) -> None:
        goals = set()
        for seed in SEEDS:
            world = world_of(name, seed)
            goals.add(world.observe())
            assert world.score().value < 1
            for each in world.task.solution[:-1]:
                perform(world, each.tool, each.arguments)
            assert world.score().value < 1, f"seed {seed} is solved before the end"
            perform(world, world.task.solution[-1].tool, world.task.solution[-1].arguments)
            assert world.score().value == 1, f"seed {seed}: {world.score().about}"
        assert len(goals) > len(SEEDS) / 2

    def test_a_world_goes_back_to_where_it_stood(self, name: str) -> None:
        world = world_of(name, 3)
        half = len(world.task.solution) // 2
        for each in world.task.solution[:half]:
            perform(world, each.tool, each.arguments)
        there = json.loads(json.dumps(world.snapshot()))
        assert there == world.snapshot(), "a snapshot is plain data"
        told = [perform(world, each.tool, each.arguments) for each in world.task.solution[half:]]
        world.restore(there)
        assert world.score().value < 1
        assert [perform(world, e.tool, e.arguments) for e in world.task.solution[half:]] == told
        world.reset(3)
        assert world.snapshot() == world_of(name, 3).snapshot()
        assert world.snapshot() != world_of(name, 4).snapshot()

    def test_what_fails_changes_nothing(self, name: str) -> None:
        world, failed = world_of(name, 1), 0
        for made in world.tools({}).values():
            required = made.parameters.get("required", ())
            kinds = {key: value.get("type") for key, value in made.parameters["properties"].items()}
            bad = {key: {"integer": 10**6, "string": "no such thing"}.get(kinds[key], {}) for key in required}
            before = world.snapshot()
            try:
                run(made.call(bad, context()))
            except ToolFailed:
                failed += 1
                assert world.snapshot() == before, made.name
        assert failed

    def test_a_run_that_is_resumed_or_judged_finds_the_world_as_it_left_it(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        world = world_of(name, 2)
        turns: list[Any] = [
            [ToolCall(id=f"c{i}", name=each.tool, arguments=json.dumps(each.arguments))]
            for i, each in enumerate(world.task.solution)
        ]
        agent = spec(environment=Choice(name=name, options={"seed": 2}), max_steps=len(turns) + 1)

        async def scenario() -> None:
            async with harness(tmp_path, turns[:-1]) as h:
                run_id = await h.runtime.start(agent, "solve it")
                async for record in h.runtime.events(run_id):
                    if record.kind == "step_ended" and record.event.step == len(turns) - 1:  # type: ignore[union-attr]
                        break
            async with harness(tmp_path, [turns[-1], ["Done."]]) as h:
                assert (await world_score(h.runtime.show(run_id))).value < 1
                await h.runtime.resume(run_id)
                state = await h.runtime.wait(run_id)
                assert (await world_score(state)).value == 1

                async def unread(_: str) -> Any:
                    raise AssertionError("no other run is read")

                reopened = await build("environment", agent.environment).open(
                    EnvironmentServices(state=state, read=unread)
                )
                for each in world.task.solution:
                    await world.tools({})[each.tool].call(dict(each.arguments), context())
                assert reopened.snapshot() == world.snapshot()

        run(scenario())

    def test_a_seed_below_zero_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match="seed"):
            build("environment", Choice(name=name, options={"seed": -1})).check()
