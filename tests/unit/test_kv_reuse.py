"""One prefix tree for turns, sub-agents and branches: what is reused changes no token of anybody."""

from __future__ import annotations

import pytest

from pentad.choice import Choice, build
from pentad.registry import known
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import ToyRunner
from pentad.types import Hints, RunContext

LEAD = tuple(5 * i % 97 for i in range(40))
HELPERS = 3
TURNS = 3


def team(eviction: str | None, blocks: int) -> tuple[list[list[int]], int, int]:
    """A lead asks, three helpers go on from its text in turns of their own, two branches end it.

    Returns all answers, the prompt tokens, and those that came from the cache; without an eviction there is
    no prefix cache.
    """
    options = {} if eviction is None else {"kv_eviction": build("kv_eviction", Choice.of(eviction))}
    engine = toy_engine(
        runner=ToyRunner(num_blocks=blocks, block_size=4), prefix_cache=eviction is not None, **options
    )
    answers: list[list[int]] = []
    asked = supplied = 0

    def ask(name: str, prompt: tuple[int, ...], context: RunContext) -> tuple[int, ...]:
        nonlocal asked, supplied
        answer = run(engine, token_request(f"{name}/0", prompt, 3, context=context))[f"{name}/0"]
        assert answer.stats is not None
        asked += len(prompt)
        supplied += answer.stats.cached_tokens
        answers.append(answer.tokens)
        return (*prompt, *answer.tokens)

    text = ask("lead", LEAD, RunContext(run_id="lead", hints=Hints(next="model", fan_out=HELPERS)))
    helpers = {i: (*text, 90 + i, 7, 8) for i in range(HELPERS)}
    for turn in range(TURNS):
        for i, prompt in helpers.items():
            parent = "lead" if turn == 0 else f"helper-{i}-{turn - 1}"
            context = RunContext(run_id=f"helper-{i}", parent=parent, hints=Hints(next="tool"))
            helpers[i] = (*ask(f"helper-{i}-{turn}", prompt, context), 60 + turn, i)
    for branch in range(2):
        ask(f"branch-{branch}", (*text, 50 + branch), RunContext(run_id="lead", parent="lead"))
    return answers, asked, supplied


@pytest.mark.row("cost-kv-reuse", "mechanism", claims=(2,))
@pytest.mark.parametrize("blocks", [18, 80])
@pytest.mark.parametrize("eviction", known("kv_eviction"))
def test_helpers_and_branches_share_their_leads_blocks_and_answer_as_without_a_cache(
    eviction: str, blocks: int
) -> None:
    plain, asked, none = team(None, blocks)
    shared, same, supplied = team(eviction, blocks)
    assert shared == plain
    assert (same, none) == (asked, 0)
    assert supplied >= asked / 2
