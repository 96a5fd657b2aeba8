"""The shipped demo agent on the real 135M model: it plans, calls tools and answers from the results."""

from __future__ import annotations

import pathlib
import re

import pytest

from agent_support import run
from pentad.agent.journal import Journal
from pentad.agent.loading import load_agent
from pentad.agent.runtime import AgentRuntime
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService

CASES = {
    "What is 347 times 28, and which weekday is 2026-12-25?": (
        ("calculator", "calendar"),
        ("9716", "Friday"),
    ),
    "What is 17 times 23?": (("calculator",), ("391",)),
    "Which weekday is 2027-03-14?": (("calendar",), ("Sunday",)),
    "How much is 12.5% of 640?": (("calculator",), ("80",)),
}
"""Goals with the tools that they need, and no others, and what a right answer says."""


@pytest.mark.row("agent-core", "mechanism")
def test_the_demo_agent_calls_the_tools_that_a_goal_needs_and_answers_right(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        backend = local_backend(open_model(smollm2_path), EngineSettings(kv_bytes=256 << 20))
        models = ModelService({"smollm2": backend}, router=Fixed())
        runtime = AgentRuntime(models, Journal(tmp_path / "journal.db"))
        for goal, (tools, wanted) in CASES.items():
            run_id = await runtime.start(load_agent("demo"), goal)
            state = await runtime.wait(run_id)
            explained = runtime.explain(run_id)
            assert state.status == "answered", goal
            assert sorted(tool for tool, _ in state.plan or ()) == sorted(tools), goal
            assert all(re.search(rf"(?<![\w.]){part}(?!\w|\.\d)", state.answer) for part in wanted), (
                state.answer
            )
            assert explained.residual_fraction < 0.02
            assert explained.tool_calls == len(tools)
            assert {s.layer for s in explained.shares if s.seconds > 0} >= {"agent", "model", "execution"}
            assert {bar.kind for bar in explained.waterfall} >= {"planning", "prefill", "decode", "tool"}
            assert all(prompt.text is not None for prompt in runtime.prompts(run_id))
            assert goal in (runtime.prompts(run_id)[0].text or "")
        await runtime.close()
        await models.close()

    run(scenario(), timeout_s=300)
