"""One request carries its objective, budget and trace through all five layers and back."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from gateway_support import Live, live, model_service
from pentad.agent.journal import Journal
from pentad.agent.loading import load_agent
from pentad.agent.runtime import AgentRuntime
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.model.loading import open_model
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import RunContext

MODEL = "smollm2-135m"
PENTAD: dict[str, Any] = {
    "run_id": "trip-7",
    "step": 3,
    "graph": {"book": ["search"], "pay": ["book"]},
    "node": "book",
    "hints": {"next": "pay"},
    "slo": {"ttft_s": 2.5, "deadline_s": 30.0},
    "budget": {"tokens": 4000},
    "data_label": "local",
    "explain": True,
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[RunContext]:
    """Every context that the batch scheduler planned with."""
    contexts: list[RunContext] = []
    plan = Sarathi.plan

    def watched(self: Sarathi, state: SchedulerInput) -> StepPlan:
        contexts.extend(view.context for view in (*state.waiting, *state.running))
        return plan(self, state)

    monkeypatch.setattr(Sarathi, "plan", watched)
    return contexts


@pytest.fixture
def server(smollm2_path: pathlib.Path, tmp_path: pathlib.Path, seen: list[RunContext]) -> Iterator[Live]:
    settings = EngineSettings(kv_bytes=256 << 20, check_invariants=True)
    backend = local_backend(open_model(smollm2_path, name=MODEL), settings)
    models = model_service(backend, name=MODEL)
    agents = AgentRuntime(models, Journal(tmp_path / "journal.db"), agents={"demo": load_agent("demo")})
    with live(Services(models=models, agents=agents)) as running:
        yield running


@pytest.mark.row("fw-five-layer", "mechanism")
def test_a_chat_takes_its_context_down_to_the_scheduler_and_brings_the_records_up(
    server: Live, seen: list[RunContext]
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": 8,
        "pentad": PENTAD,
    }
    answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()

    assert seen
    for context in seen:
        assert (context.run_id, context.step, context.hints.next) == ("trip-7", 3, "pay")
        assert context.node == "book"
        assert context.graph == {"book": ("search",), "pay": ("book",)}
        assert (context.objective.ttft_s, context.objective.deadline_s) == (2.5, 30.0)
        assert (context.budget.tokens, context.data_label) == (4000, "local")
    records = answer["pentad"]
    assert {"application", "model", "resource", "execution"} <= set(records["layers_s"])
    assert "model" in {decision["layer"] for decision in records["decisions"]}


@pytest.mark.row("fw-five-layer", "mechanism")
def test_an_agent_run_is_accounted_for_by_layer(server: Live, seen: list[RunContext]) -> None:
    asked = {
        "agent": "demo",
        "goal": "What is 12 times 12, and which weekday is 2026-12-25?",
        "pentad": {"slo": {"deadline_s": 200.0}, "budget": {"tokens": 6000}},
    }
    run = httpx2.post(f"{server.url}/v1/runs", json=asked, timeout=60).json()
    deadline = time.monotonic() + 200
    while run["status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
        run = httpx2.get(f"{server.url}/v1/runs/{run['id']}", timeout=60).json()
    assert run["status"] == "answered"

    mine = [context for context in seen if context.run_id == run["id"]]
    assert mine
    assert all(context.objective.deadline_s == 200.0 for context in mine)
    left = [context.budget.tokens for context in mine if context.budget.tokens is not None]
    assert left[0] <= 6000
    assert left[-1] < left[0], "each step carries what is left of the budget"
    acting = [context for context in mine if context.hints.next == "tool"]
    assert {context.hints.tool for context in acting} == {"calculator", "calendar"}
    assert {context.node for context in mine} >= {"1-calculator", "2-calendar", "answer"}
    assert mine[-1].hints.remaining_steps == 0
    explained = httpx2.get(f"{server.url}/v1/runs/{run['id']}/explain", timeout=60).json()
    layers = {share["layer"] for share in explained["layers"] if share["seconds"] > 0}
    assert layers >= {"agent", "model", "resource", "execution"}
    assert explained["residual_fraction"] < 0.02
    kept = [d for d in explained["decisions"] if (d["policy"], d["subject"]) == ("retention", "keep")]
    assert {decision["chosen"] for decision in kept} == {"kept"}
