"""Options of a request: the same from body, metadata, headers and Dynamo's hints, in every dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from gateway_app import CHAT, call, param_of, scripted_app
from pentad.application.gateway.settings import TenantPolicy
from pentad.testing.backends import ScriptedBackend
from pentad.types import Hints, Objective, Request, RunContext

TURNS = CHAT["messages"]
DIALECTS: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS},
    "/v1/completions": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"model": "scripted", "messages": TURNS, "max_tokens": 9},
}
OPTIONS: dict[str, Any] = {
    "run_id": "r1",
    "step": 2,
    "graph": {"b": ["a"]},
    "node": "a",
    "parent": "chatcmpl-1",
    "hints": {"next": "tool", "tool": "search", "tool_s": 2.5, "fan_out": 2, "remaining_steps": 3},
    "priority": 4,
    "slo": {"ttft_s": 0.5, "deadline_s": 9.0},
    "data_label": "local",
}
CONTEXT = RunContext(
    run_id="r1",
    step=2,
    graph={"b": ("a",)},
    node="a",
    parent="chatcmpl-1",
    hints=Hints(next="tool", tool="search", tool_s=2.5, fan_out=2, remaining_steps=3),
    objective=Objective(ttft_s=0.5, deadline_s=9.0),
    data_label="local",
)


def asked(path: str, headers: dict[str, str] | None = None, **fields: Any) -> Request:
    """The request that reached the model, of a tenant that may ask for any priority."""
    app, backend = scripted_app(tenants=(TenantPolicy(name="default", priority=-(2**31)),))
    answer = call(app, "POST", path, body={**DIALECTS[path], **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    return only(backend)


def only(backend: ScriptedBackend) -> Request:
    (request,) = backend.requests
    return request


def refused(headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    app, backend = scripted_app()
    answer = call(app, "POST", "/v1/chat/completions", body={**CHAT, **fields}, headers=headers)
    assert answer.status_code == 400, answer.text
    assert not backend.requests
    return answer


def texts(dash: str) -> dict[str, str]:
    """The options one by one, objects as JSON."""
    return {
        name.replace("_", dash): value if isinstance(value, str) else json.dumps(value)
        for name, value in OPTIONS.items()
    }


@pytest.mark.parametrize("path", DIALECTS)
class TestEveryDialect:
    def test_takes_them_from_the_body(self, path: str) -> None:
        request = asked(path, pentad=OPTIONS)
        assert (request.context, request.priority) == (CONTEXT, 4)

    def test_takes_them_from_metadata(self, path: str) -> None:
        given = {f"pentad_{name}": value for name, value in texts("_").items()}
        request = asked(path, metadata={**given, "user_id": "u", "trace": "pentad"})
        assert (request.context, request.priority) == (CONTEXT, 4)

    def test_takes_them_from_headers(self, path: str) -> None:
        request = asked(path, {f"X-Pentad-{name}": value for name, value in texts("-").items()})
        assert (request.context, request.priority) == (CONTEXT, 4)

    def test_takes_dynamos_hints(self, path: str) -> None:
        hints = {"priority": 5, "strict_priority": 1, "osl": 1024, "speculative_prefill": True}
        request = asked(path, nvext={"agent_hints": hints})
        assert request.context.hints == Hints(next="model", output_tokens=1024)
        assert request.priority == -1005

    def test_says_nothing_where_nothing_is_said(self, path: str) -> None:
        request = asked(path)
        assert (request.context, request.priority) == (RunContext(), 0)


def test_body_comes_before_metadata_before_headers_before_dynamo() -> None:
    request = asked(
        "/v1/chat/completions",
        {"x-pentad-run-id": "header", "x-pentad-node": "header", "x-pentad-step": "7"},
        pentad={"run_id": "body", "hints": {"tool": "search"}},
        metadata={"pentad_run_id": "metadata", "pentad_node": "metadata"},
        nvext={"agent_hints": {"osl": 5, "priority": 1}},
        priority=3,
    )
    context = request.context
    assert (context.run_id, context.node, context.step) == ("body", "metadata", 7)
    assert context.hints == Hints(tool="search", output_tokens=5)
    assert request.priority == 3


def test_a_tenants_policy_bounds_the_priority_of_hints() -> None:
    app, backend = scripted_app(tenants=(TenantPolicy(name="default", priority=-10),))
    for given in (5, 50):
        hints = {"agent_hints": {"priority": given}}
        call(app, "POST", "/v1/chat/completions", body={**CHAT, "nvext": hints})
    assert [request.priority for request in backend.requests] == [-5, -10]


def test_a_response_follows_from_the_one_before() -> None:
    app, backend = scripted_app()
    first = call(app, "POST", "/v1/responses", body={"input": "hello"}).json()
    call(app, "POST", "/v1/responses", body={"input": "go on", "previous_response_id": first["id"]})
    assert backend.requests[0].id == first["id"]
    assert backend.requests[1].context.parent == first["id"]


@pytest.mark.parametrize(
    ("headers", "fields", "param", "hint"),
    [
        ({}, {"pentad": {"runid": "r"}}, "pentad.runid", "did you mean 'run_id'?"),
        ({}, {"pentad": {"slo": {"ttft": 1}}}, "pentad.slo.ttft", "did you mean 'ttft_s'?"),
        ({}, {"pentad": {"hints": {"fanout": 1}}}, "pentad.hints.fanout", "did you mean 'fan_out'?"),
        ({"x-pentad-run": "r"}, {}, "x-pentad-run", "did you mean 'run-id'?"),
        ({"x-pentad-slo": '{"ttft": 1}'}, {}, "x-pentad-slo.ttft", "did you mean 'ttft_s'?"),
        ({}, {"metadata": {"pentad_nod": "a"}}, "metadata.pentad_nod", "did you mean 'node'?"),
        ({}, {"pentad": {"graph": {"b": ["a"]}, "node": "bb"}}, "node", "did you mean 'b'?"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(
    headers: dict[str, str], fields: dict[str, Any], param: str, hint: str
) -> None:
    answer = refused(headers, **fields)
    assert param_of(answer) == param
    assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"x-pentad-step": "two"}, {}),
        ({"x-pentad-hints": "{"}, {}),
        ({"x-pentad-hints": '{"fan_out": 0}'}, {}),
        ({}, {"metadata": {"pentad_hints": '{"tool_s": -1}'}}),
        ({}, {"metadata": {"pentad_step": {"deep": 1}}}),
        ({}, {"pentad": {"hints": {"output_tokens": 0}}}),
        ({}, {"pentad": {"graph": {"a": ["b"], "b": ["a"]}}}),
        ({}, {"nvext": {"agent_hints": {"osl": "many"}}}),
    ],
)
def test_values_out_of_range_are_refused(headers: dict[str, str], fields: dict[str, Any]) -> None:
    refused(headers, **fields)


def test_unknown_hints_of_dynamo_are_ignored_and_the_nearest_is_named() -> None:
    app, backend = scripted_app()
    hints = {"speculative_prefil": True, "prefix_id": "p"}
    answer = call(app, "POST", "/v1/chat/completions", body={**CHAT, "nvext": {"agent_hints": hints}})
    assert only(backend).context == RunContext()
    assert "did you mean 'speculative_prefill'?" in answer.headers["x-pentad-notice"]
    assert "nvext.agent_hints.prefix_id" in answer.headers["x-pentad-ignored"]
