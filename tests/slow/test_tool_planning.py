"""What planners of tool calls gain on goals whose calls need each other, and on goals whose calls do not.

PENTAD_CASES=/some/folder .venv/bin/python -m pytest -m slow tests/slow/test_tool_planning.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agent_models import real_runtime
from agent_support import run
from evidence.plugin import Measure
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice
from tool_suites import Facts, Goal, each_case

pytestmark = pytest.mark.slow
FACTS, SEED = Facts(seed=41), 97
ONE_STEP = Choice.of("parallel:replans=0")
SEQUENTIAL = Choice(name="sequential")
REVERSE = Choice(name="reverse-chain")
FORWARD = Choice.of("react:max_plan=0")
STEP_BY_STEP = "Think step by step: say which tool you need next and why, then call it, one call at a time."


def shares(
    model: pathlib.Path,
    folder: pathlib.Path,
    suite: str,
    goals: Sequence[Goal],
    planners: Mapping[str, tuple[Choice, str]],
) -> dict[str, list[dict[str, Any]]]:
    """For each planner what came of each goal: whether it was reached, with how many tokens and calls."""

    async def scenario() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        async with real_runtime(model, folder) as (runtime, _, _):
            for made in FACTS.tools():
                runtime.toolbox.add(made)
            for name, (planner, told) in planners.items():
                agent = AgentSpec(
                    name="seeker",
                    instructions=told,
                    tools=("*",),
                    planner=planner,
                    max_steps=12,
                    max_tokens=160,
                )

                async def work(goal: Goal, agent: AgentSpec = agent) -> dict[str, Any]:
                    state = await runtime.wait(await runtime.start(agent, goal.text))
                    return {
                        "goal": goal.text,
                        "way": goal.way,
                        "right": state.status == "answered" and goal.reached(state.answer),
                        "found": any(
                            result.content == goal.answers[-1]
                            for exchange in state.exchanges
                            for result in exchange.results.values()
                        ),
                        "tokens": state.totals.prompt_tokens + state.totals.completion_tokens,
                        "calls": [f"{c.name}{c.arguments}" for e in state.exchanges for c in e.calls],
                        "answer": state.answer[:200],
                        "status": state.status,
                    }

                found[name] = await each_case(f"{model.stem}-{suite}-{name}", goals, work)
        return found

    return run(scenario(), 3 * 3600.0)


def share(cases: Sequence[Mapping[str, Any]]) -> float:
    return sum(case["right"] for case in cases) / len(cases)


@pytest.mark.row("tool-tptu", "effect", claims=(1,))
def test_calls_that_need_each_other_are_made_right_more_often_one_at_a_time(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    goals = FACTS.dependent(40, SEED)
    planners = {"one-step": (ONE_STEP, ""), "sequential": (SEQUENTIAL, "")}
    found = shares(qwen_large_path, tmp_path, "dependent", goals, planners)
    at_once, in_turn = share(found["one-step"]), share(found["sequential"])
    print(f"dependent goals reached of {len(goals)}: one-step {at_once:.3f}, sequential {in_turn:.3f}")
    measured("sequential over one-step, dependent goals", in_turn - at_once, at_least=0.10)


@pytest.mark.row("tool-tptu", "effect", claims=(2,))
def test_calls_that_need_nothing_of_each_other_take_fewer_tokens_at_once(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    goals = FACTS.independent(30, SEED)
    planners = {"one-step": (ONE_STEP, ""), "sequential": (SEQUENTIAL, "")}
    found = shares(qwen_large_path, tmp_path, "independent", goals, planners)
    tokens = {name: sum(case["tokens"] for case in cases) for name, cases in found.items()}
    at_once, in_turn = share(found["one-step"]), share(found["sequential"])
    print(f"independent goals reached: one-step {at_once:.3f}, sequential {in_turn:.3f}; tokens {tokens}")
    measured("tokens saved by one-step", 1 - tokens["one-step"] / tokens["sequential"], at_least=0.30)


@pytest.mark.row("tool-reverse-chain", "effect", claims=(1,))
def test_going_back_from_the_last_call_reaches_more_than_thinking_forward(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    goals = FACTS.dependent(40, SEED)
    # A small model that is told to think aloud may not call at all, so the better of both counts.
    planners = {
        "reverse-chain": (REVERSE, ""),
        "forward": (FORWARD, STEP_BY_STEP),
        "forward-plain": (FORWARD, ""),
    }
    found = shares(qwen_large_path, tmp_path, "dependent", goals, planners)
    back = share(found["reverse-chain"])
    forward = max(share(found["forward"]), share(found["forward-plain"]))
    print(f"compositional goals reached of {len(goals)}: reverse chain {back:.3f}, forward {forward:.3f}")
    measured("reverse chain over forward thinking", back - forward, at_least=0.10)
