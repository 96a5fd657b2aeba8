"""JSON from outside: every text gives a value that is safe to walk, or a ValueError."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import cast

import pytest

from chat_support import answered, ask, tiny_files
from pentad.agent.tools.base import ToolServices
from pentad.agent.tools.builtin.calculator import build
from pentad.agent.tools.invocation import parse
from pentad.errors import ContextLengthExceeded, ToolFailed
from pentad.execution.backend import ToolCallDelta
from pentad.json_text import MAX_DEPTH, parse_json
from pentad.model.toolcalls import CallParser, choose_format
from pentad.types import Message, ToolCall, ToolSpec


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "text", [nested(MAX_DEPTH + 1), nested(990), "[" * 500_000, "[" * 100_000 + "]" * 100_000]
)
def test_what_nests_too_deep_is_a_value_error_wherever_the_stack_stands(text: str) -> None:
    def below(levels: int) -> None:
        if levels:
            below(levels - 1)
        else:
            with pytest.raises(ValueError):
                parse_json(text)

    below(0)
    below(sys.getrecursionlimit() - 400)


def test_data_is_read_as_it_is() -> None:
    data = {"a": [1, 2.5, None, True, "é\u2028"], "b": {}}
    assert parse_json(json.dumps(data)) == data
    assert parse_json(json.dumps(data).encode("utf-16")) == data
    assert parse_json(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))
    assert parse_json('"a\nb"', strict=False) == "a\nb"


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": -Infinity}', "1" * 5000, '"a\nb"', b"\xff", "{} {}"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


CALL = ToolCall(id="c1", name="add", arguments=nested(990))
ADD = ToolSpec(name="add", parameters={"type": "object"})


def in_history() -> None:
    messages = (
        Message(role="user", content="hi"),
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", content="1", tool_call_id="c1"),
    )
    native = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
        "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    )
    for template in (None, native):
        # Rendered and tokenized: what refuses it is its length.
        with pytest.raises(ContextLengthExceeded):
            answered(ask(messages=messages, tools=(ADD,)), "ok", files=tiny_files(template))


def in_an_answer() -> None:
    said = '<tool_call>\n{"name": "add", "other": ' + nested(990) + "}\n</tool_call>"
    parser = CallParser(choose_format("hermes", None)[0], {"add": {}}, "r1")
    deltas = [*parser.feed(said), *parser.finish()]
    assert [d.name for d in deltas if isinstance(d, ToolCallDelta) and d.name] == ["add"]


def in_a_call() -> None:
    with pytest.raises(ValueError):
        CALL.parsed()


def in_a_tool() -> None:
    with pytest.raises(ToolFailed, match="no JSON"):
        parse(build(cast("ToolServices", None)), CALL.arguments)


@pytest.mark.parametrize("use", [in_history, in_an_answer, in_a_call, in_a_tool])
def test_deep_arguments_break_nothing(use: Callable[[], None]) -> None:
    use()
