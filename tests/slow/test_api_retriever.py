"""A learned retriever and demonstrations among hundreds of APIs: functions and requests that it never saw.

PENTAD_CASES=/some/folder .venv/bin/python -m pytest -m slow tests/slow/test_api_retriever.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from agent_models import real_runtime
from agent_support import run
from api_sets import ApiSet, api_set, called, write_solved
from evidence.plugin import Measure
from pentad.agent.embedding import embed_beginnings
from pentad.agent.evaluation.base import ONE_CALL, Case
from pentad.agent.evaluation.suites.bfcl_simple import BfclSimple
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool
from pentad.agent.tools.policy.retrieve import tool_text
from pentad.agent.tools.policy.training import trained
from pentad.choice import Choice
from pentad.model.embedding import LocalEmbedder
from pentad.model.relevance import Relevance
from pentad.model.relevance_head import RelevanceHead, write_head
from tool_suites import each_case

pytestmark = pytest.mark.slow
OFFERED, K = 220, 5


def vectors(minilm: pathlib.Path) -> Relevance:
    embedder = LocalEmbedder.open(minilm, name="minilm")

    async def embed(texts: Any) -> list[list[float]]:
        return embedder.embed_counted(texts)[0]

    return Relevance(embed, encoder="minilm")


def learned(apis: ApiSet, relevance: Relevance, folder: pathlib.Path) -> RelevanceHead:
    """A head trained on what may be learned, among the functions that are not held out."""

    async def never(arguments: Any, context: Any) -> str:
        raise AssertionError(f"{arguments} {context}")

    hidden = {called(case) for case in (*apis.held_out, *apis.choices)}
    tools = {
        name: Tool(name=name, description=f["description"], parameters=f["parameters"], call=never)
        for name, f in apis.functions.items()
        if name not in hidden
    }
    solved = write_solved(folder / "solved.jsonl", apis.learned)
    return run(trained(str(solved), tools, relevance, steps=60, seed=0), 900.0).head


@pytest.mark.row("tool-tptu2", "effect")
def test_the_right_function_of_hundreds_is_found_no_less_often(
    minilm_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    apis, relevance = api_set(), vectors(minilm_path)
    head = learned(apis, relevance, tmp_path)
    names = list(apis.functions)
    texts = [
        tool_text(Tool(name=n, description=f["description"], parameters={}, call=None))  # type: ignore[arg-type]
        for n, f in apis.functions.items()
    ]

    async def places(by: RelevanceHead | None) -> list[int]:
        found = []
        for case in apis.held_out:
            scores = await relevance.scores([case.goal], texts, head=by)
            ranked = sorted(range(len(names)), key=lambda i: -scores[i])
            found.append(ranked.index(names.index(called(case))))
        return found

    plain, trained_ = run(places(None), 900.0), run(places(head), 900.0)
    count = len(apis.held_out)
    for k in (1, 3, 5, 10):
        shares = [sum(place < k for place in each) / count for each in (plain, trained_)]
        print(f"right function in the first {k} of {len(names)}: {shares[0]:.3f}, trained {shares[1]:.3f}")
    print(f"{head.steps} steps, {head.examples} requests learned, {count} held out")
    within = [sum(place < K for place in each) / count for each in (plain, trained_)]
    measured("right function in the first five, trained over plain", within[1] - within[0], at_least=0.0)
    measured("right function in the first five, trained", within[1], at_least=0.9)


@pytest.mark.row("tool-tptu2", "effect", claims=(1,))
def test_retriever_and_demonstrations_make_more_calls_right_than_plain_vectors(
    qwen_path: pathlib.Path, minilm_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    apis = api_set()
    cases = apis.held_out[:110]
    offering, suite = apis.offering(cases, OFFERED, 5), BfclSimple()
    head, solved = tmp_path / "head.npz", write_solved(tmp_path / "solved.jsonl", apis.learned)
    write_head(head, learned(apis, vectors(minilm_path), tmp_path))
    arms: Mapping[str, Mapping[str, Choice]] = {
        "plain": {"tool_policy": Choice(name="retrieve", options={"k": K})},
        "learned": {
            "tool_policy": Choice(name="learned", options={"k": K, "file": str(head)}),
            "context": Choice(name="demonstrations", options={"file": str(solved), "offered": False}),
        },
    }

    async def scenario() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        async with real_runtime(qwen_path, tmp_path, minilm_path) as (runtime, models, _):
            await embed_beginnings(models, "minilm", ["ready"])
            for name, chosen in arms.items():
                agent = AgentSpec(
                    name="caller",
                    instructions=suite.setting.instructions,
                    planner=ONE_CALL,
                    max_steps=1,
                    max_tokens=200,
                    environment=offering,
                    **chosen,  # type: ignore[arg-type]
                )

                async def work(case: Case, agent: AgentSpec = agent) -> dict[str, Any]:
                    state = await runtime.wait(await runtime.start(agent, case.goal))
                    score = await suite.judge(case, state)
                    return {
                        "case": case.id,
                        "right": score.value >= 1,
                        "about": score.about,
                        "offered": called(case) in (state.offered or ()),
                    }

                found[name] = await each_case(f"apis-{qwen_path.stem}-{name}", cases, work)
        return found

    found = run(scenario(), 3 * 3600.0)
    right = {name: sum(each["right"] for each in of) / len(of) for name, of in found.items()}
    print(f"right calls of {len(cases)}, {OFFERED} functions: {right}")
    measured("learned and demonstrations over plain vectors", right["learned"] - right["plain"], at_least=0.1)
