"""What teams earn with real models: a debate beside the vote of as many samples; drift by an encoder.

nice .venv/bin/pytest -s -m slow tests/slow/test_agent_team_effects.py --rows-file \
    benchmarks/results/rows-agent.jsonl
The encoder needs seconds, the debate some hours on four cores.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
from functools import cache

import numpy as np
import pytest

from agent_models import real_runtime
from agent_support import run
from drift_terms import OTHER, SAME, TERMS
from evidence.plugin import Measure
from pentad.agent.coordination.reading import normal
from pentad.agent.planning.final_answer import canonical_answer, final_answer
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.team.glossary import Contract
from pentad.choice import Choice
from pentad.model.embedding import LocalEmbedder
from pentad.types import Budget

pytestmark = pytest.mark.slow
DEV = pathlib.Path(__file__).parents[3] / "shared" / "data" / "gsm8k-dev.jsonl"
CASES, AT_ONCE, LIMIT_S = 100, 4, 8 * 3600.0
TOKENS = 12_000
"""Budget of one run."""
ASKED = "Reason step by step and end with a line `answer: NUMBER`."


@pytest.mark.row("ma-semantic-consistency", "effect", claims=(1,))
def test_an_encoder_flags_other_meanings_and_leaves_paraphrases(
    minilm_path: pathlib.Path, measured: Measure
) -> None:
    embedder = LocalEmbedder.open(minilm_path, name="minilm")

    @cache
    def vector(text: str) -> np.ndarray:
        found, _ = embedder.embed_counted([text])
        return np.asarray(found[0]) / np.linalg.norm(found[0])

    def near(a: str, b: str) -> float:
        return max(0.0, float(vector(a) @ vector(b)))

    contract = Contract(goal="", terms=TERMS, least=0.5)
    caught = sum(bool(contract.drifts(f"{term}: {OTHER[term]}", near)) for term in TERMS)
    alarms = sum(bool(contract.drifts(f"{term}: {SAME[term]}", near)) for term in TERMS)
    measured("conflicts detected", caught / len(TERMS), at_least=0.8)
    measured("false alarms", alarms / len(TERMS), at_most=0.1)


async def solved(
    runtime: AgentRuntime, agent: AgentSpec, asked: list[tuple[str, str]]
) -> tuple[float, float]:
    """The share of right answers, and the mean tokens of a run."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: str, right: str) -> tuple[bool, int]:
        async with slots:
            state = await runtime.wait(await runtime.start(agent, question))
        return normal(state.answer) == right, state.ledger.used.tokens

    done = await asyncio.gather(*(one(*each) for each in asked))
    share, tokens = sum(ok for ok, _ in done) / len(done), sum(used for _, used in done) / len(done)
    print(
        json.dumps(
            {"bench": "gsm8k", "coordinator": str(agent.coordinator), "right": share, "tokens": tokens}
        )
    )
    return share, tokens


@pytest.mark.row("ma-debate", "effect", claims=(1,))
def test_a_debate_of_three_in_two_rounds_is_not_below_a_vote_of_equal_tokens(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    """Nine answers in one round cost no fewer tokens than three in two rounds, whose prompts are longer."""
    if not DEV.exists():
        pytest.skip(f"{DEV} is not here")
    lines = [json.loads(line) for line in DEV.read_text("utf-8").splitlines()[:CASES]]
    asked = [
        (f"{each['question']}\n{ASKED}", canonical_answer(final_answer(each["answer"]) or ""))
        for each in lines
    ]

    def panel(members: int, rounds: int) -> AgentSpec:
        made = {
            f"m{n}": AgentSpec(name=f"m{n}", temperature=0.7, seed=n, max_tokens=320) for n in range(members)
        }
        chosen = Choice(name="debate", options={"rounds": rounds})
        return AgentSpec(name="panel", coordinator=chosen, agents=made, budget=Budget(tokens=TOKENS))

    async def scenario() -> None:
        async with real_runtime(qwen_large_path, tmp_path) as (runtime, _, _):
            debated, tokens = await solved(runtime, panel(3, 2), asked)
            voted, rivals = await solved(runtime, panel(9, 1), asked)
            measured("tokens of the debate, over the vote's", tokens / rivals, at_most=1.1, unit="x")
            measured("right by debate, over the vote", debated - voted, at_least=0.0)

    run(scenario(), LIMIT_S)
