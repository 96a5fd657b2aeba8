"""The planner `mindagent`: a text kitchen, one dispatcher, one to three cooks."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.planning.mindagent import MindAgent
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.errors import ToolFailed
from pentad.testing.backends import Item
from pentad.types import Request

COOKS = ("ann", "ben", "cai")
STAGES = ("chop", "cook", "serve")


class Kitchen:
    """Soups go through three stages; each stage of a soup takes one cook one round."""

    def __init__(self, orders: int) -> None:
        self.stage = [0] * orders
        self.busy: set[str] = set()
        self.most_at_once = self.refused = 0

    @property
    def served(self) -> int:
        return sum(stage == len(STAGES) for stage in self.stage)

    def tools(self) -> list[Tool]:
        def made(name: str) -> Tool:
            async def act(worker: str, soup: int) -> str:
                self.busy.add(worker)
                self.most_at_once = max(self.most_at_once, len(self.busy))
                await asyncio.sleep(0.01)
                self.busy.discard(worker)
                if not 0 <= soup < len(self.stage) or self.stage[soup] != STAGES.index(name):
                    self.refused += 1
                    raise ToolFailed(f"soup {soup} cannot be done so now")
                self.stage[soup] += 1
                return f"soup {soup}: {name} is done"

            act.__name__ = name
            act.__doc__ = f"Does {name} for a soup."
            return tool(effects="none")(act)

        return [made(name) for name in STAGES]

    def dispatcher(self, wrong: Sequence[object] = ()) -> object:
        """Gives each worker the next stage of a soup of its own; at first what is wrong, if anything is."""
        left = list(wrong)

        def turn(request: Request) -> Sequence[Item]:
            asked = (request.messages or ())[-1].content
            if request.format.kind != "json_schema":
                return [f"{self.served} soups are served"]
            if left and "broke a rule" not in asked:
                return [json.dumps({"done": False, "dispatch": left.pop(0)})]
            workers = asked.partition("Workers: ")[2].split("\n")[0].split(", ")
            still = [n for n, stage in enumerate(self.stage) if stage < len(STAGES)]
            given = [
                {"worker": worker, "tool": STAGES[self.stage[soup]], "arguments": {"soup": soup}}
                for worker, soup in zip(workers, still, strict=False)
            ]
            return [json.dumps({"done": not given, "dispatch": given})]

        return turn


def worked(
    path: pathlib.Path, kitchen: Kitchen, cooks: Sequence[str], steps: int, wrong: Sequence[object] = ()
) -> tuple[RunState, list[str]]:
    async def scenario() -> tuple[RunState, list[str]]:
        made = spec(
            tools=STAGES, planner=Choice(name="mindagent", options={"workers": list(cooks)}), max_steps=steps
        )
        turns = [kitchen.dispatcher(wrong)]
        async with harness(path, turns, kitchen.tools(), repeat=True, journal=f"{len(cooks)}.db") as h:  # type: ignore[arg-type]
            state = await h.work(made, "Serve the soups.")
            return state, [(r.messages or ())[-1].content for r in h.backend.requests]

    return run(scenario())


@pytest.mark.row("plan-mindagent", "mechanism")
def test_more_cooks_serve_more_in_the_same_rounds_and_act_at_once(tmp_path: pathlib.Path) -> None:
    served = []
    for count in (1, 2, 3):
        kitchen = Kitchen(orders=9)
        state, _ = worked(tmp_path, kitchen, COOKS[:count], steps=13)
        assert state.status == "answered"
        assert kitchen.most_at_once == count
        served.append(kitchen.served)
    # Six rounds fit: each finishes two soups of three stages per cook.
    assert served == [2, 4, 6]


@pytest.mark.row("plan-mindagent", "mechanism")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            [{"worker": "ann", "tool": "chop", "arguments": {"soup": 0}}] * 2,
            "ann has two actions in one round",
        ),
        (
            [{"worker": "zoe", "tool": "chop", "arguments": {"soup": 0}}],
            "there is no worker 'zoe'; known: ann",
        ),
        (
            [{"worker": "ann", "tool": "fry", "arguments": {"soup": 0}}],
            "there is no action 'fry'; known: chop",
        ),
        ([{"worker": "ann", "tool": "chop", "arguments": {}}], "ann: chop lacks soup"),
        ([], "it gives nobody an action"),
    ],
)
def test_a_dispatch_that_breaks_a_rule_is_not_carried_out_and_told(
    tmp_path: pathlib.Path, wrong: Sequence[object], says: str
) -> None:
    kitchen = Kitchen(orders=1)
    state, asked = worked(tmp_path, kitchen, ("ann",), steps=20, wrong=[wrong])
    assert state.status == "answered"
    assert says in asked[1]
    assert kitchen.refused == 0
    assert kitchen.served == 1


def test_what_the_world_refuses_stands_in_the_next_question(tmp_path: pathlib.Path) -> None:
    kitchen = Kitchen(orders=1)
    too_early = [{"worker": "ann", "tool": "serve", "arguments": {"soup": 0}}]
    _, asked = worked(tmp_path, kitchen, ("ann",), steps=20, wrong=[too_early])
    assert 'ann serve({"soup": 0, "worker": "ann"}): soup 0 cannot be done so now' in asked[1]
    assert kitchen.refused == 1
    assert kitchen.served == 1


def test_workers_have_different_names() -> None:
    with pytest.raises(ValueError, match="different names"):
        MindAgent(workers=("a", "a"))
