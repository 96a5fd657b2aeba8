"""What one tenant does at the door leaves the others theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from test_gateway_operations import a_response

from gateway_app import CHAT, call, scripted_app
from pentad.application.gateway import GatewaySettings
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.settings import TenantPolicy
from pentad.application.gateway.store import ResponseStore
from pentad.errors import InvalidRequest
from pentad.types import Message

KEYS = ("ann:one", "bob:two")
ANN, BOB = {"x-api-key": "one"}, {"x-api-key": "two"}


def gateway(app: Starlette) -> Gateway:
    made: Gateway = app.state.gateway
    return made


def ask(app: Starlette, headers: dict[str, str], **fields: Any) -> int:
    return call(app, "POST", "/v1/chat/completions", body={**CHAT, **fields}, headers=headers).status_code


@pytest.mark.parametrize(("asked", "got"), [(-(2**31), 0), (-1, 0), (0, 0), (7, 7)])
def test_priorities_are_no_more_urgent_than_the_default_policy(asked: int, got: int) -> None:
    app, backend = scripted_app(api_keys=KEYS)
    assert ask(app, ANN, priority=asked) == 200
    assert backend.requests[0].priority == got


def test_a_tenants_policy_sets_its_most_urgent_priority() -> None:
    policies = (TenantPolicy(name="ann", priority=-5), TenantPolicy(name="bob", priority=3))
    app, backend = scripted_app(api_keys=KEYS, tenants=policies)
    for headers, asked in ((ANN, -9), (ANN, -4), (BOB, -9), (BOB, 4)):
        assert ask(app, headers, priority=asked) == 200
    assert [request.priority for request in backend.requests] == [-5, -4, 3, 4]


def test_policies_need_a_key_and_are_given_once() -> None:
    with pytest.raises(InvalidRequest, match="tenants with keys are: ann, bob"):
        GatewaySettings(api_keys=KEYS, tenants=(TenantPolicy(name="eve"),))
    with pytest.raises(InvalidRequest, match="'ann' twice"):
        GatewaySettings(api_keys=KEYS, tenants=(TenantPolicy(name="ann"), TenantPolicy(name="ann")))
    assert GatewaySettings(tenants=(TenantPolicy(name="default", priority=-1),)).policy_of("x").priority == 0


def test_a_tenant_with_all_its_requests_under_way_leaves_the_others_places() -> None:
    app, _ = scripted_app(api_keys=KEYS, max_concurrent_requests=4)
    load = gateway(app).load
    with load.slot("ann"), load.slot("ann"):
        assert ask(app, ANN) == 429
        assert ask(app, BOB) == 200


async def _withheld(app: Starlette, headers: dict[str, str], begun: asyncio.Event, *, then: bytes) -> int:
    """A POST whose body comes only when the task is let go on."""
    status = 0
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw += [(b"host", b"127.0.0.1"), (b"content-length", str(len(then)).encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"",
        "query_string": b"",
        "headers": raw,
        "state": {},
    }
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        await begun.wait()
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": then, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def test_withheld_bodies_take_no_request_place_and_only_their_tenants_readers() -> None:
    app, _ = scripted_app(api_keys=KEYS, max_concurrent_requests=4)
    load = gateway(app).load
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'

    async def run() -> None:
        begun, ready = asyncio.Event(), asyncio.Event()
        ready.set()
        waiting = [asyncio.create_task(_withheld(app, ANN, begun, then=body)) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert (load.active, load.readers.of("ann")) == (0, 8)
        assert await _withheld(app, ANN, ready, then=body) == 429
        assert await _withheld(app, BOB, ready, then=body) == 200
        begun.set()
        answers = await asyncio.gather(*waiting)
        assert answers.count(200) >= 2
        assert set(answers) <= {200, 429}
        assert (load.active, load.readers.total) == (0, 0)

    asyncio.run(run())


def test_a_tenant_that_stores_much_forgets_its_own_responses_only() -> None:
    store = ResponseStore(limit_bytes=40_000, share=0.5)
    turn = Message(role="user", content="x" * 2000)
    for name in ("r0", "r1"):
        store.put("bob", a_response(name), (turn,))
    for index in range(50):
        store.put("ann", a_response(f"r{index}"), (turn,))
    assert store.size_bytes <= 40_000
    assert store.get("bob", "r0") is not None
    assert store.get("ann", "r49") is not None
    assert store.get("ann", "r0") is None
    greedy = ResponseStore(limit_bytes=20_000)
    greedy.put("bob", a_response("r0"), (turn,))
    for index in range(20):
        greedy.put("ann", a_response(f"r{index}"), (turn,))
    assert greedy.get("bob", "r0") is not None, "room is made by whoever takes the most"
