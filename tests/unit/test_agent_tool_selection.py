"""Tool selection among 200 real tools: those of BFCL's simple calls, by shared words alone."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from agent_support import run, spec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.policy.base import Offerable
from pentad.agent.tools.policy.retrieve import Retrieve
from pentad.model.relevance import Relevance

pytestmark = pytest.mark.thorough

CALLS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "bfcl-v4-simple_python.jsonl"
CALLS = CALLS if CALLS.exists() else pathlib.Path(__file__).parents[2] / "shared" / "data" / CALLS.name


async def nothing(arguments: Any, context: ToolContext) -> str:
    return ""


@pytest.mark.skipif(not CALLS.exists(), reason=f"there is no {CALLS.name} in shared/data")
@pytest.mark.row("tool-select", "effect")
def test_of_200_tools_the_right_one_is_among_the_five_offered() -> None:
    tools: dict[str, Tool] = {}
    asked: list[tuple[str, str]] = []
    for line in CALLS.read_text("utf-8").splitlines():
        case = json.loads(line)
        (function,) = case["function"]
        known = tools.get(function["name"])
        if (known is None and len(tools) == 200) or (known and known.description != function["description"]):
            continue
        tools[function["name"]] = Tool(
            name=function["name"],
            description=function["description"],
            parameters=function["parameters"],
            call=nothing,
        )
        asked.append((case["question"][0][0]["content"], function["name"]))
    assert len(tools) == 200
    found, offered_characters = 0, 0
    policy, words = Retrieve(k=5), Relevance(None)
    for goal, name in asked:
        state = RunState(run_id="r", spec=spec(), goal=goal, tenant="t")
        offer = run(policy.offer(Offerable(state=state, tools=tuple(tools.values())), words))
        assert len(offer.tools) == 5
        found += name in offer.tools
        offered_characters += sum(size(tools[each]) for each in offer.tools)
    # Measured: 186 of 201 (92.5%), and 38.9 times shorter; all 370 tools of the file: 87.9%.
    assert found / len(asked) >= 0.90
    assert sum(map(size, tools.values())) >= 10 * offered_characters / len(asked)


def size(tool: Tool) -> int:
    """Characters of what the prompt says of a tool, which its tokens go with."""
    return len(json.dumps([tool.name, tool.description, dict(tool.parameters)]))
