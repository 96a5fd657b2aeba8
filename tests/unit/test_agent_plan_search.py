"""Tree search by itself, and the planner `mcts` whose nodes the model imagines."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Callable, Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.planning.tree_search import Expansion, Path, search
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.testing.backends import Item
from pentad.types import Budget, Request, ToolCall

ROOMS, DEPTH, SIMULATIONS = 5, 4, 60


def house(seed: int, *, uniform: bool) -> tuple[Path, Callable[[Path], Expansion]]:
    """A way through rooms to a hidden thing, and what a policy of common sense says of each node.

    The policy leans to the right room, but takes another one for likelier one time in three.
    """
    source = random.Random(seed)
    way = tuple(source.randrange(ROOMS) for _ in range(DEPTH))
    fooled = [source.random() < 1 / 3 for _ in range(DEPTH)]
    wrong = [source.randrange(ROOMS) for _ in range(DEPTH)]

    def expand(path: Path) -> Expansion:
        level = len(path)
        if level == DEPTH:
            return Expansion(value=float(path == way), done=True)
        priors = [0.1] * ROOMS
        if not uniform:
            on_the_way = path == way[:level]
            priors[way[level] if on_the_way else 0] = 0.35
            if fooled[level]:
                priors[wrong[level]] = 0.4
        return Expansion(value=0.0, actions=tuple((str(n), prior) for n, prior in enumerate(priors)))

    return way, expand


def found(seed: int, simulations: int, *, uniform: bool) -> bool:
    way, expand = house(seed, uniform=uniform)
    tree = search(expand, simulations=simulations, exploration=1.0, depth=DEPTH)
    assert tree.wanted is None
    assert tree.root.visits == simulations
    return tree.best() == way


def greedy(seed: int) -> bool:
    way, expand = house(seed, uniform=False)
    path: Path = ()
    while len(path) < DEPTH:
        priors = [prior for _, prior in expand(path).actions]
        path = (*path, priors.index(max(priors)))
    return path == way


@pytest.mark.row("plan-llm-mcts", "mechanism")
def test_a_policy_as_prior_beats_the_policy_alone_and_search_without_it() -> None:
    seeds = range(100)
    both = sum(found(seed, SIMULATIONS, uniform=False) for seed in seeds)
    blind = sum(found(seed, SIMULATIONS, uniform=True) for seed in seeds)
    alone = sum(map(greedy, seeds))
    assert both >= blind + 10
    assert both >= alone + 10


def test_a_search_that_lacks_a_node_says_which_and_goes_on_where_it_was() -> None:
    _, expand = house(3, uniform=False)
    whole = search(expand, simulations=20, exploration=1.0, depth=DEPTH)
    known: dict[Path, Expansion] = {}
    asked = []
    while True:
        tree = search(known.get, simulations=20, exploration=1.0, depth=DEPTH)
        if tree.wanted is None:
            break
        asked.append(tree.wanted)
        known[tree.wanted] = expand(tree.wanted)
    assert len(set(asked)) == len(asked), "no node is asked for twice"
    assert tree == whole


BOXES = ("box", "drawer", "shelf")


def node(state: str, value: float, *actions: tuple[str, float], done: bool = False) -> str:
    made = [{"task": f"open the {where}", "tool": "open_it", "prior": prior} for where, prior in actions]
    return json.dumps({"state": state, "done": done, "value": value, "actions": made})


class Home:
    """A thing lies in the drawer."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def tools(self) -> list[Tool]:
        @tool(effects="none")
        def open_it(where: str) -> str:
            """Opens something and looks inside."""
            self.opened.append(where)
            return "there is the key" if where == "drawer" else "there is nothing"

        return [open_it]


def turn(request: Request) -> Sequence[Item]:
    """Believes in the drawer, though the box looks more promising at first."""
    asked = (request.messages or ())[-1].content
    if "beliefs" in str(request.format.value):
        return [
            json.dumps({"beliefs": [{"state": f"it is in the {b}", "probability": 0.5} for b in BOXES[:2]]})
        ]
    if request.format.kind == "json_schema":
        steps = [line for line in asked.split("\n") if line[:1].isdigit()]
        if not steps:
            return [node("at home", 0.2, ("box", 0.6), ("drawer", 0.3), ("shelf", 0.1))]
        if "drawer" in steps[-1]:
            return [node("the key is there", 1.0, done=True)]
        return [node("nothing is there", 0.1, ("shelf", 0.5))]
    if request.tools:
        where = next(box for box in BOXES if box in asked)
        return [ToolCall(id=request.id, name="open_it", arguments=json.dumps({"where": where}))]
    return ["The key is in the drawer."]


def agent(**options: object) -> object:
    planner = Choice(name="mcts", options={"simulations": 8, **options})
    return spec(tools=("open_it",), planner=planner, max_steps=24)


@pytest.mark.row("plan-llm-mcts", "mechanism")
def test_the_way_that_the_search_finds_is_carried_out(tmp_path: pathlib.Path) -> None:
    home = Home()

    async def scenario() -> None:
        async with harness(tmp_path, [turn], home.tools(), repeat=True) as h:
            state = await h.work(agent(), "Find the key.")  # type: ignore[arg-type]
            assert (state.status, state.answer) == ("answered", "The key is in the drawer.")
            assert home.opened == ["drawer"], "nothing is done while it searches"
            looked = [e.label for e in state.exchanges if e.label.startswith("look")]
            assert looked[:3] == ["look root", "look 0", "look 1"]
            assert len(looked) < 8, "a node is looked at once, however often it is on the way"
            (plan,) = [d for d in h.runtime.explain(state.run_id).decisions if d.subject == "plan"]
            assert (plan.chosen, plan.constraint) == ("open the drawer", "8 of 8 simulations")

    run(scenario())


def test_each_simulation_imagines_one_of_the_beliefs(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [turn], Home().tools(), repeat=True) as h:
            await h.work(agent(beliefs=2), "Find the key.")  # type: ignore[arg-type]
            asked = [(r.messages or ())[-1].content for r in h.backend.requests]
            supposed = [text.partition("Suppose that: ")[2].split("\n")[0] for text in asked[1:4]]
            assert set(supposed) == {"it is in the box", "it is in the drawer"}

    run(scenario())


@pytest.mark.row("plan-llm-mcts", "mechanism")
def test_the_search_ends_while_the_budget_still_pays_for_the_plan(tmp_path: pathlib.Path) -> None:
    def endless(request: Request) -> Sequence[Item]:
        if request.format.kind == "json_schema":
            return [node("still at home", 0.5, ("drawer", 0.6), ("box", 0.4))]
        return turn(request)

    home = Home()

    async def scenario() -> None:
        async with harness(tmp_path, [endless], home.tools(), repeat=True) as h:
            made = spec(
                tools=("open_it",),
                planner=Choice(name="mcts", options={"simulations": 16, "depth": 2, "node_tokens": 40}),
                max_steps=24,
                max_tokens=40,
                budget=Budget(tokens=1200),
            )
            state = await h.work(made, "Find the key.")
            assert state.status == "answered"
            assert home.opened
            (plan,) = [d for d in h.runtime.explain(state.run_id).decisions if d.subject == "plan"]
            assert plan.constraint is not None
            assert int(plan.constraint.split()[0]) < 16

    run(scenario())


def test_a_node_that_nothing_useful_is_said_of_is_given_up(tmp_path: pathlib.Path) -> None:
    def broken(request: Request) -> Sequence[Item]:
        asked = (request.messages or ())[-1].content
        bad = request.format.kind == "json_schema" and "open the box" in asked
        return ["no idea"] if bad else turn(request)

    home = Home()

    async def scenario() -> None:
        async with harness(tmp_path, [broken], home.tools(), repeat=True) as h:
            state = await h.work(agent(max_repairs=1), "Find the key.")  # type: ignore[arg-type]
            assert state.status == "answered"
            assert home.opened == ["drawer"]
            assert sum(e.outcome == "failed" for e in state.exchanges) == 2

    run(scenario())
