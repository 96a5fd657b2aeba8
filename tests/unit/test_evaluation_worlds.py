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

pytestmark = pytest.mark.thorough

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
        assert len(goals) > len(SEEDS) / 2, "seeds make tasks that differ"

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


def test_a_query_cannot_leave_its_tables_nor_go_on_for_ever() -> None:
    world = world_of("database")
    for statement in (
        "ATTACH DATABASE '/tmp/other.db' AS other",
        "PRAGMA writable_schema = 1",
        "DROP TABLE orders",
        "SELECT random()",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    ):
        with pytest.raises(ToolFailed, match="SQLite"):
            perform(world, "sql", {"statement": statement})
    assert perform(world, "sql", {"statement": "SELECT count(*) FROM orders"}) == "40"


def test_a_change_beyond_what_was_asked_is_no_success() -> None:
    changing = (world_of("database", seed) for seed in SEEDS)
    world = next(w for w in changing if w.task.solution[-1].tool == "sql")
    perform(world, "sql", {"statement": "UPDATE customers SET city = 'Nowhere' WHERE id = 1"})
    for each in world.task.solution:
        perform(world, each.tool, each.arguments)
    assert world.score().value == 0


def test_what_is_bought_counts_by_how_much_of_it_was_asked_for() -> None:
    world = world_of("shop")
    asked = world.state["asked"]
    for each in world.task.solution[:2]:
        perform(world, each.tool, each.arguments)
    offered = world.state["items"][world.state["open"]]
    other = next(colour for colour in offered["colours"] if colour != asked["colour"])
    perform(world, "choose", {"option": "colour", "value": other})
    perform(world, "choose", {"option": "size", "value": asked["size"]})
    perform(world, "buy", {})
    assert world.score().value == pytest.approx(0.8)
    with pytest.raises(ToolFailed, match="bought already"):
        perform(world, "buy", {})


def test_a_lone_cook_is_too_slow() -> None:
    for seed in SEEDS:
        world = world_of("kitchen", seed)
        while not all(dish["next"] == len(dish["steps"]) for dish in world.state["dishes"].values()):
            dish = next(n for n, d in world.state["dishes"].items() if d["next"] < len(d["steps"]))
            perform(world, "assign", {"cook": "ann", "dish": dish})
            perform(world, "wait", {})
        assert world.score().value < 1, seed


def test_a_recipe_without_its_tool_or_parts_is_refused_and_some_progress_counts() -> None:
    world = world_of("crafting")
    with pytest.raises(ToolFailed, match="wooden pickaxe"):
        perform(world, "gather", {"item": "stone"})
    with pytest.raises(ToolFailed, match="you still need"):
        perform(world, "craft", {"item": "plank"})
    assert world.score().value == 0
    perform(world, "gather", {"item": "wood", "count": 3})
    assert 0 < world.score().value < 1


@pytest.mark.row("ma-agentbench", "mechanism", claims=(1, 2))
@pytest.mark.parametrize("name", WORLDS)
def test_a_seed_scores_identically_by_one_interface_of_reset_step_and_score(name: str) -> None:
    """Six environments, offline; the solution and a broken one have the same scores every time."""
    assert len(WORLDS) >= 6
    courses = []
    for _ in range(2):
        world, course = world_of(name, 0), list[tuple[str, float, str]]()
        for seed in range(8):
            world.reset(seed)
            for number, each in enumerate(world.task.solution):
                if seed % 2 and number == 1:
                    continue
                try:
                    told = perform(world, each.tool, each.arguments)
                except ToolFailed as error:
                    told = str(error)
                course.append((told, world.score().value, world.score().about))
        courses.append(course)
    assert courses[0] == courses[1]
    assert {score for _, score, _ in courses[0]} >= {1.0}
