"""Parts by URL come from allowed hosts alone, and no private network hears of any request."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway_app import call, scripted_app
from pentad.application.gateway.fetching import Fetcher, is_public
from pentad.content import Media
from pentad.errors import InvalidRequest
from pentad.execution.backend import Capabilities

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
HOST = "images.example.com"


@contextmanager
def listening(answer: bytes = b"", *, drip_s: float = 0.0) -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine: its port, and what was asked of it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    heard.append(connection.recv(65536))
                    step = 1 if drip_s else len(answer) or 1
                    for i in range(0, len(answer), step):
                        try:
                            connection.sendall(answer[i : i + step])
                        except OSError:
                            break
                        if ending.wait(drip_s):
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            ending.set()
            thread.join(5)


def http(data: bytes = PNG, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items())]
    if "content_length" not in headers:
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def here(port: int, **options: Any) -> Fetcher:
    """A fetcher to whom this machine is a public one."""
    known = (HOST, f"{HOST}:{port}")
    return Fetcher(known, resolve=lambda *_: ["127.0.0.1"], allowed=lambda _: True, **options)


def test_an_allowed_host_is_asked_at_the_address_that_was_checked() -> None:
    with listening(http(content_type="image/png")) as (port, heard):
        found = here(port).get(f"http://{HOST}:{port}/a/b.png?x=1", "url", 1000)
    assert (found.data, found.media_type) == (PNG, "image/png")
    (asked,) = heard
    assert asked.startswith(b"GET /a/b.png?x=1 HTTP/1.1\r\n")
    assert f"Host: {HOST}:{port}".encode() in asked


STRANGE = [
    "http://127.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://169.254.169.254/latest/meta-data",
    "http://2130706433:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://localhost:{port}/",
    "http://ok\\@127.0.0.1:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://images.example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@images.example.com/",
    "http://127.0.0.1:{port}\r\nHost: images.example.com/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://0.0.0.0:{port}/",
    "ftp://images.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "http:///x",
    "http://[127.0.0.1/",
]


@pytest.mark.parametrize("url", STRANGE)
def test_no_private_address_is_connected_to_however_it_is_written(url: str) -> None:
    with listening(http()) as (port, heard):
        for hosts in (("*",), (HOST,)):
            with pytest.raises(InvalidRequest, match="send the data as a data: URL"):
                Fetcher((*hosts, f"localhost:{port}")).get(url.format(port=port), "url", 1000)
    assert not heard


def test_a_name_with_one_private_address_is_refused_and_one_that_changes_gains_nothing() -> None:
    with listening(http()) as (port, heard):
        mixed = Fetcher((f"{HOST}:{port}",), resolve=lambda *_: ["93.184.216.34", "127.0.0.1"])
        with pytest.raises(InvalidRequest, match="in a network that is not public"):
            mixed.get(f"http://{HOST}:{port}/", "url", 1000)
        answers = iter([["127.0.0.1"], ["10.0.0.1"]])
        once = Fetcher((f"{HOST}:{port}",), resolve=lambda *_: next(answers), allowed=lambda _: True)
        assert once.get(f"http://{HOST}:{port}/", "url", 1000).data == PNG
    assert len(heard) == 1


def test_redirects_are_not_followed() -> None:
    with listening(b"") as (inner, heard):
        moved = http(b"", "302 Found", location=f"http://127.0.0.1:{inner}/")
        words = "leads on to another URL, which is not followed"
        with listening(moved) as (port, _), pytest.raises(InvalidRequest, match=words):
            here(port).get(f"http://{HOST}:{port}/", "url", 1000)
    assert not heard


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(bytes(2000)), "has more than 1000 bytes"),
        (http(bytes(2000), content_length="10"), None),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2000), "has more than 1000 bytes"),
        (http(b""), "is empty"),
        (http(b"", "404 Not Found"), "is answered 404"),
        (b"nonsense", "cannot be fetched"),
        (http(PNG, content_length="900"), "cannot be fetched"),
    ],
    ids=range(7),
)
def test_answers_that_are_none_are_refused(answer: bytes, words: str | None) -> None:
    with listening(answer) as (port, _):
        if words is None:
            assert len(here(port).get(f"http://{HOST}:{port}/", "url", 1000).data) == 10
            return
        with pytest.raises(InvalidRequest, match=words):
            here(port).get(f"http://{HOST}:{port}/", "url", 1000)


def test_one_that_drips_is_cut_at_the_time_limit() -> None:
    with listening(http(bytes(900)), drip_s=0.05) as (port, _):
        started = time.monotonic()
        with pytest.raises(InvalidRequest, match="cannot be fetched"):
            here(port, within_s=0.4).get(f"http://{HOST}:{port}/", "url", 1000)
        assert time.monotonic() - started < 5


def test_hosts_are_matched_whole_or_by_their_domain() -> None:
    fetcher = Fetcher(("*.example.com", "one.org"), resolve=lambda *_: [])
    for host, known in (
        ("a.example.com", True),
        ("A.Example.COM.", True),
        ("one.org", True),
        ("example.com", False),
        ("badexample.com", False),
        ("one.org.evil", False),
    ):
        words = "host that is not known" if known else "from which nothing is fetched"
        with pytest.raises(InvalidRequest, match=words):
            fetcher.get(f"https://{host}/x", "url", 10)
    with pytest.raises(InvalidRequest, match="at port 8080, not 443"):
        fetcher.get("https://one.org:8080/", "url", 10)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("100.64.0.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_server_fetches_where_its_operator_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    can = Capabilities(model="scripted", context_length=8192, media=frozenset({"image"}))
    with listening(http(content_type="application/octet-stream")) as (port, heard):
        app, backend = scripted_app(capabilities=can, remote_parts=(f"{HOST}:{port}",))
        image = {"type": "image_url", "image_url": {"url": f"http://{HOST}:{port}/a.png"}}
        body = {"model": "scripted", "messages": [{"role": "user", "content": [image]}]}
        refused = call(app, "POST", "/v1/chat/completions", body=body)
        assert refused.status_code == 400
        app.state.gateway.fetcher = here(port)
        assert call(app, "POST", "/v1/chat/completions", body=body).status_code == 200
        (part,) = backend.requests[-1].media
        assert isinstance(part, Media)
        assert (part.data, part.media_type) == (PNG, "image/png")
    assert len(heard) == 1
