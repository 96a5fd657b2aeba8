"""What operators see: health from tokens, readiness, metrics, limits, the request's context and back."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from gateway_app import CHAT, call, chat, scripted_app
from pentad.application.gateway.load import Load
from pentad.application.gateway.metrics import Metrics
from pentad.application.gateway.metrics_vllm import ALIASES
from pentad.application.gateway.schemas.responses import ResponseObject
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.gateway.store import ResponseStore
from pentad.errors import BackendFailed, Overloaded, Unavailable
from pentad.types import Decision, Hints, Message, Span, Usage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def gateway(app: Starlette) -> Any:
    return app.state.gateway


# Health


def test_health_is_proved_by_a_token_and_probed_only_when_none_is_fresh() -> None:
    clock = Clock()
    app, backend = scripted_app(clock=clock, health_window_s=60)
    assert chat(app).status_code == 200
    assert call(app, "GET", "/health").status_code == 200
    assert len(backend.requests) == 1, "a fresh token is proof enough"
    clock.now += 61
    assert call(app, "GET", "/health").status_code == 200
    assert len(backend.requests) == 2
    assert backend.requests[1].sampling.max_tokens == 1
    assert call(app, "GET", "/health").status_code == 200
    assert len(backend.requests) == 2, "the probe's own token is fresh now"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ([asyncio.Event()], "no token within 0.05 s"),
        ([BackendFailed("the device is lost")], "the device is lost"),
        ([RuntimeError("secret")], "the log has the cause"),
    ],
)
def test_health_tells_why_a_model_makes_no_token(turn: list[Any], reason: str) -> None:
    app, _ = scripted_app([turn], health_probe_s=0.05)
    response = call(app, "GET", "/health")
    assert response.status_code == 503
    assert reason in response.json()["reason"]
    assert "secret" not in response.text
    assert call(app, "GET", "/livez").status_code == 200


def test_a_backend_that_reports_trouble_is_neither_healthy_nor_ready() -> None:
    app, backend = scripted_app()
    assert call(app, "GET", "/readyz").status_code == 200
    backend.trouble = "its thread died"
    for path in ("/health", "/readyz"):
        response = call(app, "GET", path)
        assert response.status_code == 503
        assert "its thread died" in response.json()["reason"]


# Load


def test_a_full_server_answers_429_with_retry_after_and_probes_still_work() -> None:
    app, backend = scripted_app(max_concurrent_requests=1)
    with gateway(app).load.slot("default"):
        refused = chat(app)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert call(app, "GET", path).status_code == 200
    assert chat(app).status_code == 200
    assert len(backend.requests) == 2


def test_a_draining_server_is_not_ready_and_takes_no_new_work() -> None:
    app, backend = scripted_app()
    gateway(app).load.draining = True
    refused = chat(app)
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert refused.headers["connection"] == "close"
    assert call(app, "GET", "/readyz").json()["reason"] == "draining"
    assert call(app, "GET", "/livez").status_code == 200
    assert backend.requests == []


def test_places_are_given_back_whatever_happens() -> None:
    load = Load(GatewaySettings(max_concurrent_requests=2), time.monotonic)
    with pytest.raises(ValueError), load.slot("t"):
        raise ValueError
    with load.slot("t"), load.slot("t"):
        with pytest.raises(Overloaded), load.slot("t"):
            pass
        assert load.active == 2
    load.draining = True
    with pytest.raises(Unavailable), load.slot("t"):
        pass
    assert load.active == 0


# Metrics


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_metrics_count_what_went_through() -> None:
    turn = ["a", "b", Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=2)]
    app, _ = scripted_app([turn])
    for stream in (False, True):
        chat(app, stream=stream)
    chat(app, model="nope" * 20)
    call(app, "GET", "/no/such/path")
    found = families(call(app, "GET", "/metrics").text)

    def total(name: str, **labels: str) -> float:
        samples = [s for s in found[name].samples if s.name.endswith(("_total", "_count"))]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    mine = {"model_name": "scripted"}
    assert total("pentad_prompt_tokens", **mine) == 20
    assert total("pentad_cached_tokens", **mine) == 8
    assert total("pentad_completion_tokens", **mine) == 4
    assert total("pentad_requests", **mine, outcome="stop") == 2
    assert total("pentad_requests", model_name="unknown", outcome="error") == 1
    assert total("pentad_time_to_first_token_seconds", **mine) == 2
    assert total("pentad_inter_token_seconds", **mine) == 2
    assert total("pentad_request_seconds", **mine) == 2
    assert total("pentad_http_requests", route="/v1/chat/completions", status="200") == 2
    assert total("pentad_http_requests", route="other", status="404") == 1
    assert total("pentad_overhead_seconds", part="translate") == 2  # what no model takes goes not down
    assert found["pentad_engine_requests"].samples[0].value == 2


def test_client_text_never_becomes_a_label() -> None:
    app, _ = scripted_app()
    for index in range(20):
        chat(app, model=f"made-up-{index}")
        call(app, "GET", f"/made/up/{index}")
        call(app, "BREW", "/v1/models")
    text = call(app, "GET", "/metrics").text
    assert "made" not in text
    assert "BREW" not in text


def test_vllm_names_are_added_on_request_with_the_same_values() -> None:
    stats = {"m": {"running": 3.0, "kv_usage_fraction": 0.5, "prefix_hit_tokens_total": 7.0}}
    metrics = Metrics(lambda: stats, compat="vllm")
    meter = metrics.generation("m")
    meter.first_token(0.3)
    queued = Span(layer="resource", name="queue", start_s=1.0, end_s=3.0)
    meter.usage(Usage(prompt_tokens=5, completion_tokens=2, spans=(queued,)))
    meter.done("stop", 1.0)
    meter.done("error", 1.0)
    found = families(metrics.text().decode())
    labels = {"model_name": "m", "engine": "0"}
    assert found["vllm:num_requests_running"].samples[0].value == 3
    assert found["vllm:num_requests_running"].samples[0].labels == labels
    assert found["vllm:kv_cache_usage_perc"].samples[0].value == 0.5
    assert found["vllm:prefix_cache_hits"].samples[0].value == 7
    assert found["vllm:prompt_tokens"].samples[0].value == 5
    assert found["vllm:time_to_first_token_seconds"].type == "histogram"
    ended = found["vllm:request_success"].samples
    assert [(s.labels["finished_reason"], s.value) for s in ended] == [("stop", 1)]
    waited = {s.name: s for s in found["vllm:request_queue_time_seconds"].samples}
    assert waited["vllm:request_queue_time_seconds_sum"].value == 2.0
    assert waited["vllm:request_queue_time_seconds_sum"].labels == labels
    assert {alias.theirs for alias in ALIASES} - found.keys() == {
        "vllm:num_requests_waiting",
        "vllm:prefix_cache_queries",
        "vllm:num_preemptions",
    }
    assert not any(name.startswith("vllm:") for name in families(Metrics(lambda: stats).text().decode()))


# Context


def test_the_pentad_object_and_its_headers_reach_the_model() -> None:
    app, backend = scripted_app()
    body = {"run_id": "r1", "step": 2, "graph": {"b": ["a"]}, "slo": {"ttft_s": 0.5}}
    body |= {"node": "a", "parent": "chatcmpl-1", "hints": {"next": "tool", "tool": "search", "tool_s": 2.5}}
    chat(app, pentad={**body, "budget": {"tokens": 100}, "data_label": "local"})
    headers = {
        "x-pentad-run-id": "r1",
        "x-pentad-step": "2",
        "x-pentad-graph": '{"b": ["a"]}',
        "x-pentad-node": "a",
        "x-pentad-parent": "chatcmpl-1",
        "x-pentad-hints": '{"next": "tool", "tool": "search", "tool_s": 2.5}',
        "x-pentad-slo": '{"ttft_s": 0.5}',
        "x-pentad-budget": '{"tokens": 100}',
        "x-pentad-data-label": "local",
    }
    call(app, "POST", "/v1/chat/completions", body=CHAT, headers=headers)
    first, second = (request.context for request in backend.requests)
    assert first == second
    assert first.run_id == "r1"
    assert first.graph == {"b": ("a",)}
    assert (first.node, first.parent) == ("a", "chatcmpl-1")
    assert first.hints == Hints(next="tool", tool="search", tool_s=2.5)
    assert first.objective.ttft_s == 0.5
    assert first.budget.tokens == 100
    assert first.data_label == "local"


def test_the_body_wins_over_headers() -> None:
    app, backend = scripted_app()
    call(
        app,
        "POST",
        "/v1/chat/completions",
        body={**CHAT, "pentad": {"run_id": "body"}},
        headers={"x-pentad-run-id": "header", "x-pentad-step": "4"},
    )
    assert (backend.requests[0].context.run_id, backend.requests[0].context.step) == ("body", 4)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-pentad-step": "many"},
        {"x-pentad-slo": "fast"},
        {"x-pentad-graph": "[" * 5000},
        {"x-pentad-quality": "7"},
    ],
)
def test_headers_that_cannot_be_read_are_400(headers: dict[str, str]) -> None:
    app, _ = scripted_app()
    assert call(app, "POST", "/v1/chat/completions", body=CHAT, headers=headers).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_explain_brings_back_spans_and_decisions_of_all_layers(stream: bool) -> None:
    decision = Decision(layer="resource", policy="sarathi", subject="chunk_tokens", chosen="64")
    span = Span(layer="execution", name="prefill", start_s=5.0, end_s=6.0)
    clock = Clock()
    app, _ = scripted_app([["a", Usage(spans=(span,), decisions=(decision,))]], clock=clock)
    response = chat(app, stream=stream, pentad={"explain": True})
    if stream:
        events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        told = json.loads(events[-2])["pentad"]
    else:
        told = response.json()["pentad"]
    assert {one["layer"] for one in told["spans"]} == {"application", "model", "execution"}
    assert [one["policy"] for one in told["decisions"]] == ["fixed", "sarathi"]
    assert told["layers_s"]["execution"] == 1.0
    assert told["request_id"] == response.headers["x-request-id"]
    assert min(one["start_s"] for one in told["spans"]) == 0
    assert "pentad" not in chat(app).json()


# Stored responses


def a_response(response_id: str) -> ResponseObject:
    return ResponseObject(
        id=response_id,
        created_at=1,
        model="m",
        status="completed",
        output=[],
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        temperature=1,
        top_p=1,
        text={},
    )


def test_the_store_forgets_the_oldest_within_its_bound() -> None:
    store = ResponseStore(limit_bytes=20_000)
    turn = Message(role="user", content="x" * 4000)
    for index in range(50):
        store.put("t", a_response(f"r{index}"), (turn,))
        assert store.size_bytes <= 20_000
    assert store.get("t", "r49") is not None
    assert store.get("t", "r0") is None
    store.put("t", a_response("huge"), (Message(role="user", content="x" * 30_000),))
    assert store.get("t", "huge") is None
    for index in range(50):
        store.remove("t", f"r{index}")
    assert (len(store), store.size_bytes) == (0, 0)
