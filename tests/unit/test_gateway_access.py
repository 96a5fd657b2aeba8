"""Who gets in: keys, hosts, origins, and what every answer carries."""

from __future__ import annotations

import base64
import hashlib
import logging
import pathlib
import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gateway_app import CHAT, call, chat, scripted_app
from pentad.application.gateway import ApiKey, GatewaySettings
from pentad.application.gateway.settings import is_loopback
from pentad.errors import InvalidRequest

SECRET = "canary-secret"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def every_route(app: Starlette) -> list[tuple[str, str]]:
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route!r} is not of the kind that this test enumerates"
        path = re.sub(r"\{[^}]+\}", "x", route.path)
        found += [(method, path) for method in METHODS]
    return found


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": SECRET},
        {"authorization": "Bearer"},
        {"authorization": "Basic !!!"},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
    ],
    ids=["none", "wrong bearer", "no scheme", "empty bearer", "bad basic", "wrong x-api-key", "empty"],
)
def test_every_route_and_method_but_livez_and_the_console_page_needs_the_key(headers: dict[str, str]) -> None:
    app, backend = scripted_app(api_keys=(SECRET,))
    routes = every_route(app)
    assert len(routes) > 7 * 25
    for method, path in [*routes, ("GET", "/nowhere"), ("POST", "/v1/../v1/models")]:
        response = call(app, method, path, headers=headers)
        if path == "/livez":
            assert response.status_code in (200, 405)
        elif path == "/" or path.startswith("/console"):
            # The sign-in page: files of the package, the same for everybody.
            assert response.status_code in (200, 307, 404, 405), (method, path)
        else:
            assert response.status_code == 401, (method, path)
            assert "www-authenticate" in response.headers
    assert backend.requests == []


@pytest.mark.parametrize(
    "key",
    [SECRET, f"ann:{SECRET}", f"ann:sha256:{hashlib.sha256(SECRET.encode()).hexdigest()}"],
    ids=["plain", "named", "hashed"],
)
def test_the_right_key_opens_and_names_the_tenant(key: str) -> None:
    app, backend = scripted_app(api_keys=("bob:other", key))
    for headers in (
        {"authorization": f"Bearer {SECRET}"},
        {"x-api-key": SECRET},
        {"authorization": "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()},
    ):
        response = call(app, "POST", "/v1/chat/completions", body=CHAT, headers=headers)
        assert response.status_code == 200
    expected = "default" if key == SECRET else "ann"
    assert {request.tenant for request in backend.requests} == {expected}


def test_all_keys_are_compared_whatever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "pentad.application.gateway.access.hmac.compare_digest",
        lambda a, b: compared.append((a, b)) or a == b,
    )
    app, _ = scripted_app(api_keys=("a:one", "b:two", "c:three"))
    for secret in ("one", "three", "none"):
        compared.clear()
        call(app, "GET", "/version", headers={"x-api-key": secret})
        assert len(compared) == 3
        assert all(len(a) == len(b) == 32 for a, b in compared)


def test_keys_are_in_no_log_repr_or_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app, _ = scripted_app([[RuntimeError("broken")]], api_keys=(f"ann:{SECRET}",))
    seen = [chat(app).text, repr(GatewaySettings(api_keys=(SECRET,))), repr(ApiKey.parse(SECRET))]
    for path in ("/v1/chat/completions", "/metrics", "/openapi.json", "/nowhere"):
        for method in ("GET", "POST"):
            response = call(app, method, path, body=CHAT, headers={"x-api-key": SECRET})
            seen += [response.text, str(response.headers)]
    assert not any(SECRET in text for text in [*seen, caplog.text])


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com"])
def test_an_address_that_others_reach_is_refused_without_a_key(host: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--api-keys-file, .*--host 127\.0\.0\.1"):
        GatewaySettings(host=host)
    assert GatewaySettings(host=host, api_keys=("k",)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.8.8"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert GatewaySettings(host=host).api_keys == ()


@pytest.mark.parametrize("field", ["max_body_bytes", "keep_alive_s", "max_concurrent_requests"])
def test_settings_that_cannot_work_are_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        GatewaySettings(**{field: 0})


@pytest.mark.parametrize("path", ["/", "/console", "/metrics", "/v1/models", "/v1/runs", "/livez", "/health"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "attacker.example"},
        {"host": "127.0.0.1.attacker.example"},
        {"host": "localhost.attacker.example:8000"},
        {"host": ""},
        {"origin": "http://attacker.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "file://"},
    ],
    ids=lambda h: " ".join(f"{k}={v}" for k, v in h.items()),
)
def test_rebound_names_and_foreign_pages_are_refused(path: str, headers: dict[str, str]) -> None:
    app, _ = scripted_app()
    assert call(app, "GET", path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8000"},
        {"host": "[::1]:8000"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        {"host": "gateway.test"},
        {"origin": "https://chat.example.com"},
    ],
)
def test_own_names_and_named_ones_are_let_in(headers: dict[str, str]) -> None:
    app, _ = scripted_app(allowed_hosts=("gateway.test",), allowed_origins=("https://chat.example.com",))
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 200


def test_only_named_origins_get_cors_headers() -> None:
    app, _ = scripted_app(allowed_origins=("https://chat.example.com",))
    named = {"origin": "https://chat.example.com"}
    asked = {**named, "access-control-request-method": "POST"}
    preflight = call(app, "OPTIONS", "/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == named["origin"]
    assert call(app, "GET", "/v1/models", headers=named).headers["access-control-allow-origin"]
    plain, _ = scripted_app()
    own = call(plain, "GET", "/v1/models", headers={"origin": "http://127.0.0.1:8000"})
    assert "access-control-allow-origin" not in own.headers


def test_every_answer_carries_the_request_id_and_security_headers() -> None:
    app, _ = scripted_app()
    for path in ("/v1/models", "/nowhere"):
        response = call(app, "GET", path, headers={"x-request-id": "abc-1"})
        assert response.headers["x-request-id"] == "abc-1"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
    unsafe = call(app, "GET", "/v1/models", headers={"x-request-id": "<script>"})
    assert unsafe.headers["x-request-id"].startswith("req_")


def test_the_console_page_is_served_with_a_strict_policy() -> None:
    app, _ = scripted_app()
    page = call(app, "GET", "/console")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "/etc/passwd", "%00"])
def test_static_files_outside_the_console_are_not_served(name: str) -> None:
    app, _ = scripted_app()
    assert call(app, "GET", f"/console/static/{name}").status_code == 404


@pytest.mark.parametrize(
    "host",
    [
        "[::1]evil.com",
        "[::1]:80evil",
        "[::1].evil.com",
        "localhost@evil.com",
        "localhost:80:80",
        "localhost/evil.com",
        "localhost evil.com",
        "evil.com#localhost",
        "localhost%2eevil",
        "[::1",
        "[localhost]",
        "",
    ],
)
def test_a_host_header_that_only_begins_like_ours_is_refused(host: str) -> None:
    app, backend = scripted_app()
    response = call(app, "GET", "/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert backend.requests == []


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.:80", "[::1]", "[::1]:8000", "127.0.0.1:1"]
)
def test_every_way_to_write_a_loopback_host_is_answered(host: str) -> None:
    app, _ = scripted_app()
    assert call(app, "GET", "/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://[::1", "http://a@localhost", "null", "http://", "localhost"])
def test_an_origin_that_is_none_is_refused_and_breaks_nothing(origin: str) -> None:
    app, _ = scripted_app()
    headers = {"host": "localhost", "origin": origin}
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 403


def test_keys_come_from_a_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ann's\nann:{SECRET}\n\nbob:other\n")
    app, backend = scripted_app(api_keys_file=str(file))
    assert call(app, "GET", "/v1/models").status_code == 401
    headers = {"authorization": f"Bearer {SECRET}"}
    assert call(app, "POST", "/v1/chat/completions", body=CHAT, headers=headers).status_code == 200
    assert [request.tenant for request in backend.requests] == ["ann"]


@pytest.mark.parametrize("text", [None, "", "# none\n"])
def test_a_file_of_keys_that_holds_none_stops_the_start(tmp_path: pathlib.Path, text: str | None) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidRequest, match=r"api_keys_file .* (cannot be read|holds no key)"):
        GatewaySettings(api_keys_file=str(file))


def test_the_access_log_has_one_line_per_request_and_no_content(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = scripted_app(api_keys=(f"ann:{SECRET}",), access_log=True)
    headers = {"authorization": f"Bearer {SECRET}", "x-request-id": "req-1"}
    call(app, "POST", "/v1/chat/completions?q=canary-query", body=CHAT, headers=headers)
    call(app, "GET", "/a%0Ab", headers=headers)
    lines = [record.getMessage() for record in caplog.records if record.name == "pentad.access"]
    assert re.fullmatch(
        r"\S+ tenant=ann POST /v1/chat/completions 200 bytes=[1-9]\d* s=\d+\.\d{3} id=req-1", lines[0]
    )
    assert re.fullmatch(r"\S+ tenant=ann GET /a\?b 404 bytes=\d+ s=\S+ id=req-1", lines[1])
    assert len(lines) == 2
    assert SECRET not in caplog.text
    assert "canary-query" not in caplog.text


def test_without_the_setting_there_is_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = scripted_app()
    caplog.set_level(logging.DEBUG)
    call(app, "GET", "/v1/models")
    assert not [record for record in caplog.records if record.name == "pentad.access"]
