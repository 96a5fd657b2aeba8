"""JavaScript in Node and in a web page that comes from elsewhere."""

from __future__ import annotations

from pentad.testing.backends import Turn
from real_clients.case import Case, Install, Seen, call

SDK = Install(
    name="ai-sdk",
    npm=("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai", "@ai-sdk/anthropic", "zod", "esbuild"),
    version_of="ai",
)
SUM = ["{", '"total": 3, ', '"words": ["one", ', '"two"]}']
BESIDE = 'ln -s "{home}/node_modules" . && cp "{programs}"/*.mjs .'
"""A program finds its packages beside itself."""
BUNDLE = "node_modules/.bin/esbuild ai_sdk_page.mjs --bundle --format=esm --log-level=error --outfile=page.js"


def _loop() -> list[Turn]:
    return [[call("add", '{"a": 1, "b": 2}')], ["It is ", "3."]]


def _turns() -> list[Turn]:
    return [*_loop(), *_loop(), SUM]


def _dialects() -> list[Turn]:
    """Anthropic's provider asks for an object by a tool that must be called."""
    return [*_turns(), *_loop(), *_loop(), [call("json", "".join(SUM))]]


def _spoken(seen: Seen) -> None:
    typed = {"total": 3, "words": ["one", "two"]}
    each = {"plain": "It is 3.", "steps": 2, "streamed": "It is 3.", "object": typed}
    assert seen.said == {"responses": each, "anthropic": each}, seen.said


def _said(seen: Seen) -> None:
    typed = {"total": 3, "words": ["one", "two"]}
    parts = seen.said.pop("parts", 0)
    assert seen.said == {
        "plain": "It is 3.",
        "steps": 2,
        "streamed": "It is 3.",
        "counted": True,
        "object": typed,
        "streamedObject": typed,
    }, seen.said
    assert parts > 1, "the object did not come in parts"
    assert seen.requests[4].format.kind == "json_schema"


CASES = (
    Case(
        name="ai-sdk-node",
        install=SDK,
        did="in Node: tool loop plain and streamed with usage, typed object plain and streamed",
        command=("sh", "-ec", f"{BESIDE} && node ai_sdk_node.mjs {{url}}"),
        turns=_turns(),
        check=_said,
    ),
    Case(
        name="ai-sdk-chromium",
        install=SDK,
        did="the same in Chromium, in a page from another origin",
        command=(
            *("sh", "-ec"),
            f'{BESIDE} && {BUNDLE} && python3 "{{programs}}/page_in_chromium.py" {{port}} page.js {{url}}',
        ),
        origins=("http://127.0.0.1:{port}",),
        turns=_turns(),
        check=_said,
    ),
    Case(
        name="ai-sdk-dialects",
        install=SDK,
        did="OpenAI (Responses) and Anthropic providers in Node: tool loop plain and streamed, typed object",
        command=("sh", "-ec", f"{BESIDE} && node ai_sdk_dialects.mjs {{url}}"),
        turns=_dialects(),
        check=_spoken,
    ),
)
