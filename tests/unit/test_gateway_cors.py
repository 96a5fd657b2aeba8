"""Browser SDKs from an allowed origin may send their headers and read ours; others may not."""

from __future__ import annotations

import pathlib

import pytest

from gateway_app import call, chat, scripted_app
from pentad.application.config_loading import resolve

ORIGIN = "https://chat.example.com"
SENT = (
    "authorization, content-type, x-api-key, x-stainless-lang, x-stainless-retry-count, anthropic-version, "
    "anthropic-beta, anthropic-dangerous-direct-browser-access, openai-organization, x-pentad-slo"
)


def asked(**headers: str) -> dict[str, str]:
    """The headers of a preflight."""
    return {"origin": ORIGIN, "access-control-request-method": "POST", **headers}


def test_a_page_of_an_allowed_origin_may_send_what_its_sdk_sends() -> None:
    app, _ = scripted_app(allowed_origins=(ORIGIN,), api_keys=("key",))
    headers = asked(**{"access-control-request-headers": SENT})
    answer = call(app, "OPTIONS", "/v1/messages", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == SENT
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "access-control-request-headers, origin"


def test_a_public_page_may_call_a_server_on_the_loopback_if_it_is_named() -> None:
    app, _ = scripted_app(allowed_origins=(ORIGIN,))
    headers = asked(**{"access-control-request-private-network": "true"})
    answer = call(app, "OPTIONS", "/v1/messages", headers=headers)
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("names", ["x\r\ny", "a b", "x" * 5000, "a,,b"])
def test_what_is_no_list_of_headers_is_not_allowed(names: str) -> None:
    app, _ = scripted_app(allowed_origins=(ORIGIN,))
    if "\r" in names:
        names = names.replace("\r\n", ";")
    answer = call(app, "OPTIONS", "/v1/messages", headers=asked(**{"access-control-request-headers": names}))
    assert "access-control-allow-headers" not in answer.headers


def test_the_page_may_read_request_id_notices_and_when_to_retry() -> None:
    app, _ = scripted_app(allowed_origins=(ORIGIN,))
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "odd": 1, "max_tokens": 5}
    answer = call(app, "POST", "/v1/messages", body=body, headers={"origin": ORIGIN})
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "request-id", "x-pentad-ignored"} <= set(exposed)
    app.state.gateway.load.draining = True
    refused = call(app, "POST", "/v1/messages", body=body, headers={"origin": ORIGIN})
    assert refused.status_code == 503
    assert "retry-after" in refused.headers["access-control-expose-headers"]


def test_other_origins_get_neither() -> None:
    app, _ = scripted_app(allowed_origins=(ORIGIN,))
    other = {**asked(), "origin": "https://evil.example"}
    for method in ("OPTIONS", "POST"):
        answer = call(app, method, "/v1/messages", headers=other)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "add it with --allowed-origins" in answer.text
    assert "access-control-expose-headers" not in chat(app).headers


def test_origins_are_allowed_by_flag_environment_and_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pentad.yaml"
    file.write_text(f"server:\n  allowed_origins: [{ORIGIN}]\n", encoding="utf-8")
    sources = (
        resolve({"allowed_origins": [ORIGIN]}, env={}, folder=tmp_path / "none"),
        resolve(env={"PENTAD_ALLOWED_ORIGINS": ORIGIN}, folder=tmp_path / "none"),
        resolve(env={}, file=file),
    )
    assert [resolved.settings.server.allowed_origins for resolved in sources] == [(ORIGIN,)] * 3
