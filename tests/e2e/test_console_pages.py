"""The console's files: served whole, cached by content, closed to everything from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import pytest

from gateway_support import scripted
from pentad.application.console.pages import load_assets


@pytest.fixture(scope="module")
def site() -> Iterator[httpx2.Client]:
    with scripted(["hello"], repeat=True) as live, httpx2.Client(base_url=live.url) as client:
        yield client


def test_the_root_leads_to_the_console(site: httpx2.Client) -> None:
    answer = site.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/console")


def test_the_page_allows_scripts_and_styles_of_its_own_only(site: httpx2.Client) -> None:
    policy = site.get("/console").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("name", sorted(load_assets()))
def test_a_file_is_answered_304_while_it_has_not_changed(site: httpx2.Client, name: str) -> None:
    path = f"/console/static/{name}"
    first = site.get(path)
    again = site.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["absent.js", "..%2fpages.py", "%2e%2e/pages.py", "../pages.py", "%2fetc%2fpasswd", "a%00.js"]
)
def test_nothing_but_the_files_is_served(site: httpx2.Client, name: str) -> None:
    assert site.get(f"/console/static/{name}").status_code == 404


@pytest.mark.parametrize("name", sorted(load_assets()))
def test_no_file_refers_to_another_host(name: str) -> None:
    if name.startswith("vendor/"):
        return  # Addresses of their own sites in comments; the policy of the page forbids other hosts.
    text = load_assets()[name].body.decode()
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_page_has_no_inline_script_or_style() -> None:
    page = load_assets()["index.html"].body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\bstyle=|\son[a-z]+=", page)


def test_no_script_parses_text_as_html() -> None:
    for name, asset in load_assets().items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", asset.body.decode()
            )


def test_every_file_that_the_page_names_is_there() -> None:
    assets = load_assets()
    for name, asset in assets.items():
        text = asset.body.decode()
        named = re.findall(r"/console/static/([\w./-]+\.\w+)", text) + re.findall(
            r'(?:from |import\()"\./([\w./-]+)"', text
        )
        assert set(named) <= set(assets), name


def test_the_report_names_every_model_and_is_not_cached(site: httpx2.Client) -> None:
    answer = site.get("/v1/engine")
    assert answer.headers["cache-control"] == "no-store"
    state = answer.json()
    assert [(m["name"], m["kind"]) for m in state["models"]] == [
        ("scripted", "generate"),
        ("vectors", "embed"),
    ]
    assert state["default"] == "scripted"


def test_with_keys_set_the_page_opens_and_holds_no_data() -> None:
    with scripted(["hello"], api_keys=("k-1",)) as live:
        page = httpx2.get(f"{live.url}/console/runs/some-run", headers={"Accept": "text/html"})
        report = httpx2.get(f"{live.url}/v1/engine")
    assert page.status_code == 200
    assert page.content == load_assets()["index.html"].body
    assert "www-authenticate" not in page.headers
    assert report.status_code == 401


@pytest.mark.parametrize("address", ["", "/chat", "/chat/c1", "/runs", "/runs/run-1", "/engine"])
def test_every_address_of_the_page_survives_a_reload(site: httpx2.Client, address: str) -> None:
    assert site.get(f"/console{address}").content == load_assets()["index.html"].body


def test_files_travel_compressed_and_whole(site: httpx2.Client) -> None:
    path = "/console/static/vendor/uplot.js"
    packed = site.get(path, headers={"Accept-Encoding": "gzip"})
    plain = site.get(path, headers={"Accept-Encoding": "identity"})
    assert (packed.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
    assert packed.content == plain.content == load_assets()["vendor/uplot.js"].body


def test_the_whole_console_travels_in_less_than_120_kb() -> None:
    loaded = {name: a for name, a in load_assets().items() if not name.endswith(".txt")}
    assert sum(len(asset.packed) for asset in loaded.values()) < 120_000


def test_every_library_has_its_licence_beside_it() -> None:
    names = set(load_assets())
    libraries = {n.rpartition(".")[0] for n in names if n.startswith("vendor/") and n.endswith(".js")}
    assert libraries == {"vendor/uplot", "vendor/dagre", "vendor/marked"}
    for library in libraries:
        assert b"Permission is hereby granted" in load_assets()[f"{library}.LICENSE.txt"].body
