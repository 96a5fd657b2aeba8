"""Texts without quotes are held to their schema's lengths, pattern and format, as quoted ones are."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from chat_support import END, fits, tiny_tokenizer
from pentad.execution.request import Constraint
from pentad.model.constraints import ConstraintCompiler
from pentad.model.toolcalls import choose_format
from pentad.model.toolcalls.text_terminals import whole_match
from pentad.types import OutputFormat, ToolChoice, ToolSpec

BARE = ("qwen3_coder", "glm45", "gemma", "function_gemma")
"""Formats whose texts have no escapes."""

KEPT = [
    ({"pattern": r"^[A-Z]{2}-\d+$"}, ["AB-1", "XY-007"], ["AB-", "ab-1", "AB-1 ", "xAB-1", "AB-٣"]),
    ({"pattern": r"\d{3}"}, ["123", "a 1234 b"], ["12", "1 2 3"]),
    ({"pattern": "^(?:GET|PUT) /[^ ]*$|^-$"}, ["GET /", "PUT /a/b?c", "-"], ["POST /", "GET  /", "--"]),
    ({"pattern": r"^\u00e9+?[\w\-/]{1,3}$"}, ["éa", "éé/-_"], ["e", "é", "éabcd"]),
    ({"pattern": r"^[\[&~]$"}, ["[", "&", "~"], ["", "a", "[["]),
    ({"minLength": 3, "maxLength": 5}, ["abc", "abcde"], ["ab", "abcdef"]),
    ({"format": "date"}, ["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "2024-1-1", "today"]),
    ({"format": "time"}, ["23:59:00Z", "00:00:00.5+02:00"], ["24:00:00Z", "12:00"]),
    ({"format": "date-time"}, ["2024-02-29T12:00:00Z"], ["2024-02-29", "2024-02-30T12:00:00Z"]),
    ({"format": "duration"}, ["P1D", "PT5M", "P1Y2M3DT4H", "P2W"], ["P", "PT", "1D"]),
    ({"format": "email"}, ["a.b+c@example.org"], ["a@", "@b", "a b@c.d", ".a@b"]),
    ({"format": "hostname"}, ["example.org", "a"], ["-a.org", "a..b", "a_b"]),
    ({"format": "ipv4"}, ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
    ({"format": "ipv6"}, ["::1", "fe80::1:2", "1:2:3:4:5:6:7:8"], ["1:2", ":::", "1::2::3", "12345::"]),
    ({"format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "x" * 36]),
    ({"format": "uri"}, ["https://a.b/c?d=e#f", "mailto:a@b"], ["a b", "//a", "http:"]),
    ({"format": "colour"}, ["anything"], []),
]  # fmt: skip


@functools.cache
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(tiny_tokenizer(), {0, END})


def constraint(name: str, text: dict[str, Any]) -> Constraint:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", **text}},
        "required": ["text"],
        "additionalProperties": False,
    }
    tools = [ToolSpec(name="say", parameters=schema)]
    choice = ToolChoice(mode="required")
    return compiler().for_calls(choose_format(name, None)[0], tools, choice, OutputFormat())[0]


@pytest.mark.parametrize("name", [*BARE, "pythonic", "hermes"])
@pytest.mark.parametrize(("schema", "good", "bad"), KEPT, ids=lambda value: json.dumps(value)[:40])
def test_a_text_is_held_to_its_schema_in_every_kind_of_format(
    name: str, schema: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    format = choose_format(name, None)[0]
    first = constraint(name, schema)

    def written(text: str) -> str:
        arguments = json.dumps({"text": text}, ensure_ascii=False)
        return format.opening + format.before + format.write_call("say", arguments, 0) + format.after

    assert [text for text in good if not fits(first.fork(), written(text))] == []
    if name in BARE:  # quoted texts are the compiler's, which differs at the edges (Unicode digits)
        assert [text for text in bad if fits(first.fork(), written(text))] == []


@pytest.mark.parametrize("name", BARE)
def test_a_text_too_short_does_not_go_on_behind_its_end(name: str) -> None:
    format = choose_format(name, None)[0]
    first = constraint(name, {"minLength": 6})
    short = format.write_call("say", '{"text": "a"}', 0)
    start = format.opening + format.before
    assert not fits(first.fork(), start + short + "</x>longer" + short + format.after)


def test_alternatives_with_a_pattern_are_followed_where_a_value_may_be_a_text_or_not() -> None:
    format = choose_format("glm45", None)[0]
    first = constraint("glm45", {"type": ["string", "integer"], "pattern": "^[a-z]+[0-9]$"})
    for text, allowed in (("abc1", True), ("abc", False), ("12", True), ("true", False)):
        arguments = json.dumps({"text": text})
        call = format.opening + format.before + format.write_call("say", arguments, 0) + format.after
        assert fits(first.fork(), call) == allowed, text


@pytest.mark.parametrize("pattern", ["(^a)", "a^", r"a\b", r"(?=a)a", r"(a)\1", "[", "(a", "[]", "*"])
def test_what_cannot_be_said_without_anchors_is_left_unchecked(pattern: str) -> None:
    assert whole_match(pattern) is None
