"""The shipped demo agent on the real 135M model: it plans, calls tools and answers from the results."""

from __future__ import annotations

import pathlib

import pytest

from agent_support import run
from pentad.agent.journal import Journal
from pentad.agent.loading import load_agent
from pentad.agent.runtime import AgentRuntime
from pentad.application.config import EngineSettings
from pentad.application.wiring import local_backend
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService

GOAL = "What is 347 times 28, and which weekday is 2026-12-25?"


@pytest.mark.row("agent-core", "mechanism")
def test_the_demo_agent_plans_calls_two_tools_and_answers(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        backend = local_backend(open_model(smollm2_path), EngineSettings(kv_bytes=256 << 20))
        models = ModelService({"smollm2": backend}, router=Fixed())
        runtime = AgentRuntime(models, Journal(tmp_path / "journal.db"))
        run_id = await runtime.start(load_agent("demo"), GOAL)
        state = await runtime.wait(run_id)
        explained = runtime.explain(run_id)
        await runtime.close()
        await models.close()
        assert state.status == "answered"
        assert [tool for tool, _ in state.plan or ()] == ["calculator", "calendar"]
        results = [r.content for e in state.exchanges for r in e.results.values()]
        assert "347 * 28 = 9716" in results
        assert "2026-12-25 is a Friday" in results
        assert "9716" in state.answer
        assert "Friday" in state.answer
        assert explained.residual_fraction < 0.02
        assert explained.tool_calls >= 2
        assert {s.layer for s in explained.shares if s.seconds > 0} >= {"agent", "model", "execution"}

    run(scenario(), timeout_s=300)
