"""A run under the joint choice: way and model are chosen at once, told, and decided anew from the record."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence

import pytest

from agent_support import FREE, call, run, spec
from cli_support import Pentad
from pentad.agent.journal import Journal
from pentad.agent.planning.elastic import Elastic as Reasoning
from pentad.agent.policy_replay import replay_policy
from pentad.agent.runtime import AgentRuntime
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, Toolbox
from pentad.agent.tools.functions import tool
from pentad.application.folders import JOURNAL_FILE
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.execution.backend import Backend, Capabilities, ChoiceDone, TextDelta
from pentad.model.control.what_if import policy_of
from pentad.model.prices import Price
from pentad.model.routing.elastic import Elastic
from pentad.model.service import ModelService
from pentad.testing.agents import scripted_models
from pentad.testing.backends import ALL_FORMATS, Item, ScriptedBackend
from pentad.types import Budget, Decision, Objective, Request

WAYS = Choice(
    name="elastic",
    options={"among": ("cot:think_tokens=0", "cot:think_tokens=64", "cot:think_tokens=64,samples=3")},
)


def answering(request: Request) -> Sequence[Item]:
    """An answer alone where a short one is asked for, else a chain."""
    text = "10" if request.sampling.max_tokens == 24 else "4 and 6 are 10.\nAnswer: 10"
    made: list[Item] = []
    for choice in range(request.sampling.n):
        made += [TextDelta(text=text, choice=choice), ChoiceDone(reason="stop", choice=choice)]
    return made


def two_models(turn: Callable[[Request], Sequence[Item]] = answering) -> ModelService:
    backends: dict[str, Backend] = {
        name: ScriptedBackend(
            [turn],
            repeat=True,
            capabilities=Capabilities(
                model=name, context_length=8192, formats=ALL_FORMATS, token_prompts=True
            ),
        )
        for name in ("small", "large")
    }
    return ModelService(
        backends,
        router=Elastic(),
        prices={"small": Price(prompt=1, completion=1), "large": Price(prompt=9, completion=9)},
        qualities={"small": 0.3, "large": 0.8},
    )


def taught(models: ModelService) -> ModelService:
    """The service, told how each way went with each model on such goals."""
    shares = {"small": (2, 4, 5), "large": (5, 8, 9)}
    for name, rights in shares.items():
        for way, right in zip(WAYS.options["among"], rights, strict=True):
            for number in range(30):
                models.outcomes.judged("tester", name, way, right=number % 10 < right)
    return models


def worked(
    path: pathlib.Path, models: ModelService, offered: Sequence[Tool] = (), **agent: object
) -> tuple[RunState, tuple[Decision, ...]]:
    """A run to its end, and what was decided in it."""

    async def scenario() -> tuple[RunState, tuple[Decision, ...]]:
        journal = Journal(path / JOURNAL_FILE)
        runtime = AgentRuntime(models, journal, toolbox=Toolbox(offered))
        run_id = await runtime.start(spec(**{"planner": WAYS, "model": "auto", **agent}), "What are 4 and 6?")
        state = await runtime.wait(run_id)
        decisions = runtime.explain(run_id).decisions
        await runtime.close()
        return state, decisions

    return run(scenario())


@pytest.mark.row("fut-flex-reasoning", "mechanism")
@pytest.mark.parametrize(
    ("objective", "budget", "model", "way"),
    [
        (Objective(prefer="quality"), Budget(), "large", WAYS.options["among"][2]),
        (Objective(prefer="cost"), Budget(), "small", WAYS.options["among"][0]),
        (Objective(min_quality=0.7, prefer="cost"), Budget(), "large", WAYS.options["among"][1]),
        (Objective(prefer="quality"), Budget(tokens=300), "large", WAYS.options["among"][2]),
    ],
)
def test_objective_and_budget_choose_way_and_model_at_once(
    tmp_path: pathlib.Path, objective: Objective, budget: Budget, model: str, way: str
) -> None:
    state, decisions = worked(tmp_path, taught(two_models()), objective=objective, budget=budget)
    assert (state.status, state.answer) == ("answered", "10")
    assert state.ledger.used.tokens <= (budget.tokens or 10**9)
    joint = next(d for d in decisions if d.policy == "elastic")
    assert joint.chosen == model
    assert dict(joint.parts)["agent: way"] == way


@tool(effects="none")
def read_page(number: int) -> str:
    """Reads a page."""
    return f"page {number} says " + "much of no use, " * 80


CONTEXT = Choice(name="elastic", options={"tokens": (512,)})


@pytest.mark.parametrize(("prefer", "reduced"), [("cost", True), ("quality", False)])
def test_the_context_is_reduced_where_the_objective_asks_for_it_and_the_record_says_so(
    tmp_path: pathlib.Path, prefer: str, *, reduced: bool
) -> None:
    turns = iter([[call("read_page", number=n)] for n in range(3)] + [["It is done."]])
    models = two_models(lambda _: next(turns))
    state, decisions = worked(
        tmp_path,
        models,
        [read_page],
        planner=FREE,
        tools=("read_page",),
        context=CONTEXT,
        objective=Objective(prefer=prefer),  # type: ignore[arg-type]
    )
    assert (state.status, state.answer) == ("answered", "It is done.")
    joint = [dict(d.parts) for d in decisions if d.policy == "elastic" and d.layer == "model"]
    contexts = [parts["agent: context"] for parts in joint]
    assert any(told.startswith("reduced to 512") for told in contexts) == reduced
    cuts = [d for d in decisions if d.subject == "prompt"]
    assert bool(cuts) == reduced
    if reduced:
        assert cuts[0].constraint == "512 prompt tokens"


def test_what_five_objectives_would_choose_differs_in_three_layers_and_more(
    tmp_path: pathlib.Path, pentad_: Pentad
) -> None:
    state, _ = worked(tmp_path, taught(two_models()), objective=Objective(prefer="quality"))
    replay = ("runs", "replay", state.run_id, "--data-home", str(tmp_path), "--objectives")
    shown = json.loads(pentad_(*replay, "--json").out)
    assert [one["objective"] for one in shown] == ["fastest", "best", "cheapest", "greenest", "local only"]
    chosen = {one["objective"]: one["chosen"] for one in shown}
    for lever in ("model", "agent: way", "resource: queue"):
        assert len({one[lever] for one in chosen.values()}) > 1, lever
    expected = {one["objective"]: one["expected"] for one in shown}
    assert expected["best"]["success"] == max(one["success"] for one in expected.values())
    assert expected["cheapest"]["money"] == min(one["money"] for one in expected.values())
    assert "greenest" in pentad_(*replay).out
    wrong = pentad_(*replay, "--policy", "cheapest")
    assert wrong.status == 2
    assert "set --policy elastic" in wrong.err


def test_a_way_that_gives_up_is_followed_by_another_out_of_the_same_budget(tmp_path: pathlib.Path) -> None:
    def mute(request: Request) -> Sequence[Item]:
        return [""] if request.sampling.max_tokens == 24 else answering(request)

    aim = Objective(prefer="cost")
    state, decisions = worked(tmp_path, taught(two_models(mute)), objective=aim, budget=Budget(tokens=2000))
    assert (state.status, state.answer) == ("answered", "10")
    ways = [dict(d.parts)["agent: way"] for d in decisions if d.policy == "elastic"]
    assert ways[0] == WAYS.options["among"][0]
    assert set(ways[1:]) & set(WAYS.options["among"][1:])
    assert state.ledger.used.tokens <= 2000


def test_with_another_router_the_first_way_is_taken(tmp_path: pathlib.Path) -> None:
    models, backend = scripted_models([answering], repeat=True)
    state, _ = worked(tmp_path, models, model="")
    assert (state.status, state.answer) == ("answered", "10")
    assert [request.sampling.max_tokens for request in backend.requests] == [24]


def test_how_calls_of_tools_went_is_counted_for_the_model(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    def look(what: str) -> str:
        """Looks."""
        return f"the {what} is red"

    turns = iter([[call("look", what="lamp")], [call("look", wrong="lamp")], ["It is red."]])
    models = two_models(lambda _: next(turns))
    worked(tmp_path, models, [look], planner=FREE, tools=("look",))
    record = models.outcomes.records("tester", "large", {"": None})[""]
    assert (record.right, record.wrong) == (1.0, 1.0)


def test_a_recorded_run_is_decided_anew_by_any_policy(tmp_path: pathlib.Path, pentad_: Pentad) -> None:
    state, _ = worked(tmp_path, taught(two_models()), objective=Objective(prefer="quality"))
    journal = Journal(tmp_path / JOURNAL_FILE)
    found = replay_policy(journal.read(state.run_id), policy_of("elastic"))
    assert found.same == len(found.calls) > 0
    cheap = replay_policy(journal.read(state.run_id), policy_of("cheapest"))
    assert cheap.same == 0
    assert cheap.estimate.money < found.estimate.money
    journal.close()
    replay = ("runs", "replay", state.run_id, "--data-home", str(tmp_path), "--policy")
    told = pentad_(*replay, "elastic:hold=0", "--json")
    assert told.status == 0, told.err
    shown = json.loads(told.out)
    assert (shown["same"], shown["decisions"]) == (len(found.calls), len(found.calls))
    assert "inverse of its propensity" in shown["estimated_by"]
    assert "0 of" in pentad_(*replay, "cheapest").out
    wrong = pentad_(*replay, "cheapst")
    assert wrong.status == 2
    assert "did you mean 'cheapest'?" in wrong.err


def test_a_run_without_joint_decisions_says_what_to_do(tmp_path: pathlib.Path) -> None:
    models, _ = scripted_models([answering], repeat=True)
    state, _ = worked(tmp_path, models, model="")
    with pytest.raises(InvalidRequest) as refused:
        replay_policy(Journal(tmp_path / JOURNAL_FILE).read(state.run_id), policy_of("elastic"))
    assert "--router elastic" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("among", "problem"),
    [
        ((), "names no planner"),
        (("cot", "cot"), "names one twice"),
        (("flexible",), "which chooses planners itself"),
    ],
)
def test_choices_among_nothing_twice_or_of_choosers_are_refused(among: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reasoning(among=among)
