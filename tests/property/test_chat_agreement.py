"""Grammar and parser agree on what a call is: whatever the grammar lets through, the parser reads right."""

from __future__ import annotations

import functools

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_support import END, fits, tiny_tokenizer
from pentad import registry
from pentad.execution.backend import ChoiceDone, Completion, StreamDone, fold
from pentad.execution.request import Constraint
from pentad.model.constraints import ConstraintCompiler
from pentad.model.lark import Lark
from pentad.model.toolcalls import CallParser, choose_format
from pentad.types import OutputFormat, ToolCall, ToolChoice, ToolSpec, Usage

TOOLS = {
    "add": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "b.é": {"type": "object", "properties": {"q": {"type": "string", "maxLength": 3}}},
}
CALL_LIKE = OutputFormat(kind="json_schema", value={
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name"],
})  # fmt: skip
MARKED = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
SPACE = st.sampled_from(["", "", "", "", " ", " ", "\n", "\t", "\r\n", "\n  ", " " * 9, " " * 20])
ARGUMENTS = st.sampled_from(
    ['{"a": 1}', '{"a":1}', '{"q": "x"}', "{}", '{"a": "x"}', "null", "1", '{ "a" : 1 }']
)
KEY = st.sampled_from(['"name"', '"n\\u0061me"', '"arguments"', '"parameters"', '"other"'])
NAME = st.sampled_from(['"add"', '"b.é"', '"b.\\u00e9"', '"sub"', '"\\u0061dd"', "1"])
PIECES = st.one_of(
    SPACE, KEY, NAME, ARGUMENTS,
    st.sampled_from(["{", "{{", "}", "}}", ":", ",", "[", "]", "```", "```json", "json", "`", "text", "; "]),
    st.sampled_from(["<tool_call>", "\n</tool_call>", "[TOOL_CALLS]", "[TOOL_CALLS][", "<tool"]),
)  # fmt: skip


@st.composite
def call_like(draw: st.DrawFn) -> str:
    """An object much like a call, in one of the forms that are written."""
    start, end = draw(
        st.sampled_from(
            [
                ("", ""),
                ("```", "```"),
                ("```json\n", "\n```"),
                ("<tool_call>\n", "\n</tool_call>"),
                ("[TOOL_CALLS][", "]"),
                ("x", ""),
            ]
        )
    )
    twice, neat = draw(st.booleans()), draw(st.booleans())

    def space(usual: str = "") -> str:
        return usual if neat else draw(SPACE)

    def mostly(usual: str, others: st.SearchStrategy[str]) -> str:
        return usual if draw(st.integers(0, 5)) else draw(others)

    name, tool = mostly('"name"', KEY), mostly('"add"', NAME)
    key, arguments = (
        mostly(draw(st.sampled_from(['"arguments"', '"parameters"'])), KEY),
        mostly('{"a": 1}', ARGUMENTS),
    )
    first = f"{name}{space()}:{space(' ')}{tool}{space()},{space(' ')}"
    body = "{" + space() + "{" * twice + first + f"{key}{space()}:{space(' ')}{arguments}" + space() + "}"
    return space() + start + body + "}" * (twice or draw(st.booleans())) + end + mostly("", SPACE)


@functools.cache
def constraint(name: str, *, formatted: bool) -> Constraint:
    tools = [ToolSpec(name=tool, parameters=schema) for tool, schema in TOOLS.items()]
    compiler = ConstraintCompiler(tiny_tokenizer(), {0, END})
    answer = CALL_LIKE if formatted else OutputFormat()
    return compiler.for_calls(choose_format(name, None)[0], tools, ToolChoice(), answer)[0]


def parsed(name: str, text: str, *, formatted: bool) -> Completion:
    parser = CallParser(choose_format(name, None)[0], TOOLS, "r", formatted=formatted)
    deltas = [*parser.feed(text), *parser.finish()]
    return fold([*deltas, ChoiceDone(reason="stop"), StreamDone(usage=Usage())])


@settings(max_examples=60, deadline=None)
@example(text='{"arguments": {"a": "x"}, "name": "add"}', name="hermes", formatted=False)
@example(text='{"name": "add", "arguments": {"a": 1}}', name="hermes", formatted=True)
@example(
    text='<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', name="hermes", formatted=True
)
@example(text='{"name": "<tool_call>{}"}', name="hermes", formatted=True)
@example(text='```json\n{{"name" : "b.é",\n"arguments":{"q": "x"}}}```', name="hermes", formatted=False)
@example(text='{{"name": "add", "parameters": {"a": 1}}}', name="llama3_json", formatted=False)
@example(text=" " * 30 + '{"name": "add", "arguments": {"a": "x"}}', name="hermes", formatted=False)
@given(
    text=st.one_of(call_like(), call_like(), st.lists(PIECES, max_size=12).map("".join)),
    name=st.sampled_from(("hermes", "mistral", "llama3_json")),
    formatted=st.booleans(),
)
def test_what_the_grammar_lets_through_the_parser_reads_as_it_was_meant(
    text: str, name: str, formatted: bool
) -> None:
    formatted = formatted and name != "llama3_json"
    if not fits(constraint(name, formatted=formatted).fork(), text):
        return
    message = parsed(name, text, formatted=formatted).message
    for call in message.tool_calls:
        jsonschema.validate(call.parsed(), TOOLS[call.name])
    if message.tool_calls:
        assert not formatted or not message.content
    else:
        assert message.content == text


@pytest.mark.parametrize("name", registry.known("tool_format"))
def test_behind_text_and_where_calls_have_no_mark_the_grammar_lets_through_what_the_parser_reads(
    name: str,
) -> None:
    format = choose_format(name, None)[0]
    calls = [ToolCall(id="", name="add", arguments='{"a": 1}'), ToolCall(id="", name="b.é", arguments="{}")]
    written = format.write_calls(calls[: 1 + format.parallel])
    texts = [
        (said, said + written)
        for said in (("Well, ", "[add] is {text}", "add\n") if format.opening else ("",))
    ]
    if format.bare([("add", {})], Lark({})):
        listed = "[" if format.bare_closing else ""
        texts.append(("", listed + format.write_call("add", '{"a": 1}', 0) + format.bare_closing))
    for said, text in texts:
        assert fits(constraint(name, formatted=False).fork(), text)
        message = parsed(name, text, formatted=False).message
        assert message.content == said.rstrip(" \n")
        named = ["add", "b.é"] if "b.é" in text else ["add"]
        assert [call.name for call in message.tool_calls] == named
    for text in ("[addition]", "add (a=1)", "add\nb", "call: add", "<function"):
        assert fits(constraint(name, formatted=False).fork(), text)
        assert parsed(name, text, formatted=False).message.content == text
