"""The published OpenAPI document is true: traffic generated from it finds no 5xx and no surprise."""

from __future__ import annotations

import json
from collections.abc import Iterator

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from gateway_support import Live, scripted
from pentad.agent.spec import AgentSpec
from pentad.application.gateway.openapi import document
from pentad.application.gateway.operations import OPERATIONS, Operation

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    agents = {"helper": AgentSpec(name="helper")}
    with scripted(["some ", "words"], repeat=True, agents=agents) as live:
        yield live


def test_every_public_route_is_in_the_document_and_the_reverse(server: Live) -> None:
    served = {
        (method.lower(), route.path.replace(":path", ""))
        for route in server.app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert served == {(operation.method, operation.path) for operation in OPERATIONS}


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{mode.value} {operation.method} {operation.path}")
        for operation in OPERATIONS
        for mode in schemathesis.GenerationMode
        if mode.is_positive or operation.body is not None or operation.query
    ],
)
def test_generated_requests_find_no_server_error(
    server: Live, operation: Operation, mode: schemathesis.GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(document("test")))
    target = schema[operation.path][operation.method.upper()]

    @hypothesis.given(case=target.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=20 if operation.body is not None else 5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def probe(case: schemathesis.Case) -> None:
        response = case.call(base_url=server.url)
        case.validate_response(response, checks=CHECKS)

    probe()
