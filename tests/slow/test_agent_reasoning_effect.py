"""What reasoning in words earns on GSM8K, with real models: direct, a chain, the vote of five.

nice .venv/bin/pytest -s -m slow tests/slow/test_agent_reasoning_effect.py --rows-file \
    benchmarks/results/rows-agent.jsonl
An hour or two on four cores with the 1.5B model.
"""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest

from agent_models import real_runtime
from agent_support import run
from evidence.plugin import Measure
from pentad.agent.planning.final_answer import canonical_answer, final_answer
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice
from pentad.types import Budget

pytestmark = pytest.mark.slow
DEV = pathlib.Path(__file__).parents[3] / "shared" / "data" / "gsm8k-dev.jsonl"
AT_ONCE = 8
LIMIT_S = 8 * 3600.0
TOKENS = 4000
"""Budget of one run."""


def problems(count: int) -> list[tuple[str, str]]:
    """Questions and their right answers."""
    if not DEV.exists():
        pytest.skip(f"{DEV} is not here")
    lines = [json.loads(line) for line in DEV.read_text("utf-8").splitlines()[:count]]
    return [(line["question"], canonical_answer(final_answer(line["answer"]) or "")) for line in lines]


async def solved(runtime: AgentRuntime, planner: str, asked: list[tuple[str, str]]) -> tuple[float, float]:
    """The share of right answers, and the mean tokens of a run."""
    slots = asyncio.Semaphore(AT_ONCE)
    agent = AgentSpec(
        name="reckoner", planner=Choice.of(planner), max_steps=4, seed=1, budget=Budget(tokens=TOKENS)
    )

    async def one(question: str, right: str) -> tuple[bool, int]:
        async with slots:
            state = await runtime.wait(await runtime.start(agent, question))
        used = state.totals.prompt_tokens + state.totals.completion_tokens
        assert used <= TOKENS, "the budget is obeyed"
        return canonical_answer(state.answer) == right, used

    done = await asyncio.gather(*(one(*each) for each in asked))
    share, tokens = sum(ok for ok, _ in done) / len(done), sum(used for _, used in done) / len(done)
    print(json.dumps({"bench": "gsm8k", "planner": planner, "right": share, "tokens": tokens}), flush=True)
    return share, tokens


@pytest.mark.row("reason-cot", "effect", claims=(1, 2))
def test_a_chain_is_fifteen_points_over_the_answer_at_once(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    asked = problems(100)

    async def scenario() -> None:
        async with real_runtime(qwen_large_path, tmp_path) as (runtime, _, _):
            direct, _ = await solved(runtime, "cot:think_tokens=0", asked)
            chain, _ = await solved(runtime, "cot:think_tokens=320", asked)
            measured("right with a chain, over direct", chain - direct, at_least=0.15)

    run(scenario(), LIMIT_S)


def test_the_vote_of_five_is_not_below_one_chain(
    qwen_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    asked = problems(100)

    async def scenario() -> None:
        async with real_runtime(qwen_path, tmp_path) as (runtime, _, _):
            chain, _ = await solved(runtime, "cot:think_tokens=256", asked)
            vote, _ = await solved(runtime, "cot:think_tokens=256,samples=5", asked)
            measured("right with the vote of five, over one chain", vote - chain, at_least=0.0)

    run(scenario(), LIMIT_S)
