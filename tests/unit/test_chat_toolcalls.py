"""The tool-call parser: what is a call, what is text, and nothing in between gets lost."""

from __future__ import annotations

import json

import pytest

from pentad import registry
from pentad.errors import UnknownName
from pentad.execution.backend import ChoiceDone, Completion, StreamDone, TextDelta, ToolCallDelta, fold
from pentad.model.toolcalls import CallParser, call_id, choose_format
from pentad.types import ToolCall, ToolSpec, Usage


def parse(name: str, text: str, cut: int | None = None, *, formatted: bool = False) -> Completion:
    """Parsed in one piece, in two, or character by character (cut -1)."""
    shape = {"type": "object", "properties": {"text": {"type": "string"}}}
    schemas: dict[str, dict[str, object]] = {"add": shape, "find": {}}
    parser = CallParser(choose_format(name, None)[0], schemas, "r1", formatted=formatted)
    pieces = [text] if cut is None else list(text) if cut < 0 else [text[:cut], text[cut:]]
    deltas: list[TextDelta | ToolCallDelta] = []
    for piece in pieces:
        deltas += parser.feed(piece)
    deltas += parser.finish()
    return fold([*deltas, ChoiceDone(reason="stop"), StreamDone(usage=Usage())])


CASES = [
    ("hermes", "just text, 1 < 2 and <tool", "just text, 1 < 2 and <tool", []),
    (
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        "",
        [("add", '{"a": 1}')],
    ),
    (
        "hermes",
        'Let me see.\n\n<tool_call>{"name":"add","arguments":{}}</tool_call>\n'
        '<tool_call>{"arguments": {"q": "}{\\"</tool_call>"}, "name": "find"}</tool_call>\n',
        "Let me see.",
        [("add", "{}"), ("find", '{"q": "}{\\"</tool_call>"}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": [1, {"b": 2',
        "",
        [("add", '{"a": [1, {"b": 2')],
    ),
    ("hermes", '<tool_call>{"name": "add"}</tool_call>', "", [("add", "{}")]),
    ("hermes", '<tool_call>{"name": "add", "arguments": null}</tool_call>', "", [("add", "{}")]),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}', "", [("add", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("hermes", "see  <tool_call>nothing</tool_call>", "see  <tool_call>nothing</tool_call>", []),
    ("hermes", '<tool_call>{"nam', '<tool_call>{"nam', []),
    (
        "hermes",
        '<tool_call>{"arguments": {}}</tool_call> x',
        '<tool_call>{"arguments": {}}</tool_call> x',
        [],
    ),
    ("hermes", '<tool_call>{"name": 3}', '<tool_call>{"name": 3}', []),
    ("hermes", '<tool_call>{"name": "add", ]} tail', "]} tail", [("add", "")]),
    (
        "hermes",
        '<tool_call>{"name": "é", "arguments": {}}</tool_call> and so on',
        " and so on",
        [("é", "{}")],
    ),
    ("hermes", '{"name": "add", "arguments": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("hermes", '```json\n{\n"name": "add", "arguments": {"a": 1}\n}\n```', "", [("add", '{"a": 1}')]),
    (
        "hermes",
        '```\n{"name": "sub", "arguments": {}}\n```',
        '```\n{"name": "sub", "arguments": {}}\n```',
        [],
    ),
    ("hermes", '{"name": "add", "arguments": {}} tail', " tail", [("add", "{}")]),
    ("hermes", "```js\nadd()\n```", "```js\nadd()\n```", []),
    ("hermes", "``", "``", []),
    ("hermes", 'text {"name": "add", "arguments": {}}', 'text {"name": "add", "arguments": {}}', []),
    ("hermes", '  <tool_call>{"name": "add", "arguments": {}}', "", [("add", "{}")]),
    ("hermes", '{{"name": "add", "arguments": {"a": 1}}}', "", [("add", '{"a": 1}')]),
    ("hermes", ' { {"name": "add", "arguments": {}} } ', "", [("add", "{}")]),
    ("hermes", '{{"name": "add", "arguments": {{"a": {"b": 1}}}}}', "", [("add", '{"a": {"b": 1}}')]),
    ("hermes", '{{"name": "add", "arguments": {{}}}}', "", [("add", "{}")]),
    ("hermes", '{{"name": "add", "arguments": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("hermes", '```json\n{{"name": "add", "arguments": {"a": 1}}}\n```', "", [("add", '{"a": 1}')]),
    (
        "hermes",
        '<tool_call>\n{{"name": "add", "arguments": {"a": 1}}}\n</tool_call>\n'
        '<tool_call>\n{{"name": "find", "arguments": {}}}\n</tool_call>',
        "",
        [("add", '{"a": 1}'), ("find", "{}")],
    ),
    ("hermes", '{{"name": "sub", "arguments": {}}}', '{{"name": "sub", "arguments": {}}}', []),
    ("hermes", "{{ no call }}", "{{ no call }}", []),
    ("hermes", '{{{"name": "add"}}}', '{{{"name": "add"}}}', []),
    ("hermes", '{"arguments": {}, "name": "add"}', '{"arguments": {}, "name": "add"}', []),
    ("hermes", '{"n\\u0061me": "add"}', '{"n\\u0061me": "add"}', []),
    ("hermes", '{"name": "\\u0061dd"}', '{"name": "\\u0061dd"}', []),
    ("llama3_json", '{{"name": "add", "parameters": {"a": 1}}}', "", [("add", '{"a": 1}')]),
    (
        "mistral",
        'Ok [TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "find", "arguments": {}}]',
        "Ok",
        [("add", '{"a": 1}'), ("find", "{}")],
    ),
    ("llama3_json", '{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
    (
        "llama3_json",
        ' {"name": "add", "parameters": {"a": 1}}; {"name": "find", "parameters": {}}',
        "",
        [("add", '{"a": 1}'), ("find", "{}")],
    ),
    (
        "mistral_args",
        'Ok [TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]find[ARGS]{"q": "[TOOL_CALLS]x[ARGS]"}',
        "Ok",
        [("add", '{"a": 1}'), ("find", '{"q": "[TOOL_CALLS]x[ARGS]"}')],
    ),
    ("mistral_args", "x [TOOL_CALLS]", "x [TOOL_CALLS]", []),
    (
        "mistral_ids",
        'Ok [TOOL_CALLS]add[CALL_ID]a1B2c3D4e[ARGS]{"a": 1}[TOOL_CALLS]find[ARGS]{"q": "[CALL_ID]"}',
        "Ok",
        [("add", '{"a": 1}'), ("find", '{"q": "[CALL_ID]"}')],
    ),
    (
        "kimi_k2",
        "Ok.<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
        '{"a": 1}<|tool_call_end|><|tool_call_begin|>functions.b:2:11<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>",
        "Ok.",
        [("add", '{"a": 1}'), ("b:2", "{}")],
    ),
    (
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": "```"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n'
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        [("add", '{"a": "```"}'), ("find", "{}")],
    ),
    (
        "deepseek_v31",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        [("add", '{"a": 1}')],
    ),
    ("deepseek_v31", "<｜tool▁calls▁begin｜>?", "<｜tool▁calls▁begin｜>?", []),
    ("glm4", 'add\n{"a": 1}', "", [("add", '{"a": 1}')]),
    ("glm4", "add\nthese numbers", "add\nthese numbers", []),
    ("glm4", "address", "address", []),
    ("glm4", 'sub\n{"a": 1}', 'sub\n{"a": 1}', []),
    (
        "harmony",
        'Ok.<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>',
        "Ok.",
        [("add", '{"a": 1}')],
    ),
    (
        "granite",
        '<|tool_call|>[{"name": "add", "arguments": {"a": 1}}, {"name": "find", "arguments": {}}]',
        "",
        [("add", '{"a": 1}'), ("find", "{}")],
    ),
    (
        "phi4",
        '<|tool_call|>[{"name": "add", "arguments": {"a": 1}}]<|/tool_call|>',
        "",
        [("add", '{"a": 1}')],
    ),
    (
        "command_r",
        'I will.<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "add", "parameters": {"a": 1}},\n'
        '    {"tool_call_id": "1", "tool_name": "find", "parameters": {}}\n]<|END_ACTION|>',
        "I will.",
        [("add", '{"a": 1}'), ("find", "{}")],
    ),
    ("command_r", '{"name": "add", "arguments": {}}', '{"name": "add", "arguments": {}}', []),
    (
        "qwen3_coder",
        "Ok.\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=text>\n</p>\n\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n<function=find>\n</function>\n</tool_call>",
        "Ok.",
        [("add", '{"a": 1, "text": "</p>\\n"}'), ("find", "{}")],
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=add>\n<parameter=text>\n5\n</para",
        "",
        [("add", '{"text": "5')],
    ),
    (
        "seed_oss",
        "<seed:tool_call><function=add><parameter=text>5</parameter></function></seed:tool_call>",
        "",
        [("add", '{"text": "5"}')],
    ),
    (
        "glm45",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>[1, {}]</arg_value>\n</tool_call>\n<tool_call>"
        "find\n<arg_key>q</arg_key>\n<arg_value>nullify</arg_value>\n</tool_call>",
        "",
        [("add", '{"a": [1, {}]}'), ("find", '{"q": "nullify"}')],
    ),
    (
        "glm47",
        "<tool_call>find<arg_key>q</arg_key><arg_value>null</arg_value></tool_call><tool_call>add</tool_call>",
        "",
        [("find", '{"q": null}'), ("add", "{}")],
    ),
    (
        "pythonic",
        '[add(a=-1.5e3, b=[True, None, \'x\\\'y\\n\'], c={"k": (1,)}), find(**{"a b": 2})]',
        "",
        [("add", '{"a": -1.5e3, "b": [true, null, "x\'y\\n"], "c": {"k": [1]}}'), ("find", '{"a b": 2}')],
    ),
    ("pythonic", "[add] and [find](http://x)", "[add] and [find](http://x)", []),
    ("pythonic", "[sub(a=1)]", "[sub(a=1)]", []),
    (
        "llama4_pythonic",
        'Ok.<|python_start|>[add(a="\\ud83d\\ude00")]<|python_end|>',
        "Ok.",
        [("add", '{"a": "\\ud83d\\ude00"}')],
    ),
    ("llama4_pythonic", "[find(), add(a=1)]", "", [("find", "{}"), ("add", '{"a": 1}')]),
    (
        "lfm2",
        "<|tool_call_start|>[add(a=1)]<|tool_call_end|>",
        "",
        [("add", '{"a": 1}')],
    ),
    (
        "tool_code",
        "So:\n```tool_code\nadd(a=1)\nfind(q='x')\n```",
        "So:",
        [("add", '{"a": 1}'), ("find", '{"q": "x"}')],
    ),
    (
        "gemma",
        '<|tool_call>call:add{a:1,b:[<|"|>x"y<|"|>,{k:<|"|>}<|"|>}]}<tool_call|><|tool_call>call:find{}<tool_call|>',
        "",
        [("add", '{"a": 1, "b": ["x\\"y", {"k": "}"}]}'), ("find", "{}")],
    ),
    (
        "function_gemma",
        "<start_function_call>call:add{a:true,b:<escape>é<escape>}<end_function_call>",
        "",
        [("add", '{"a": true, "b": "é"}')],
    ),
    ("llama3_json", '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
    ("llama3_json", 'text {"name": "add"}', 'text {"name": "add"}', []),
    ("llama3_json", '{"city": "Rome"}', '{"city": "Rome"}', []),
]


@pytest.mark.parametrize(("name", "text", "content", "calls"), CASES)
def test_text_and_calls_come_apart_however_the_text_is_cut(
    name: str, text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    whole = parse(name, text)
    assert whole.message.content == content
    assert [(c.name, c.arguments) for c in whole.message.tool_calls] == calls
    for cut in range(-1, len(text) + 1):
        assert parse(name, text, cut) == whole


FORMATTED = [
    ('{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "arguments": {"a": 1}}', []),
    ('{"text": "<tool_call>{}"}', '{"text": "<tool_call>{}"}', []),
    (
        '{"text": "<tool_call>{\\"name\\": \\"add\\"}</tool_call>"}',
        '{"text": "<tool_call>{\\"name\\": \\"add\\"}</tool_call>"}',
        [],
    ),
    ('"<tool_call>"', '"<tool_call>"', []),
    ("<tool>", "<tool>", []),
    ('\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>', "", [("add", "{}")]),
    (
        '<tool_call>{"name": "add", "arguments": {}}</tool_call> <tool_call>{"name": "find"}</tool_call>',
        "",
        [("add", "{}"), ("find", "{}")],
    ),
    ("<tool_call>{}</tool_call><tool_call>", "<tool_call>{}</tool_call><tool_call>", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), FORMATTED)
def test_beside_a_format_of_its_own_only_an_opening_mark_makes_a_call(
    text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    whole = parse("hermes", text, formatted=True)
    assert whole.message.content == content
    assert [(c.name, c.arguments) for c in whole.message.tool_calls] == calls
    for cut in range(-1, len(text) + 1):
        assert parse("hermes", text, cut, formatted=True) == whole


def test_arguments_stream_while_they_are_written() -> None:
    parser = CallParser(choose_format("hermes", None)[0], {"add": {}}, "r1")
    assert [type(d) for d in parser.feed('<tool_call>{"name": "add"')] == [ToolCallDelta]
    assert parser.feed(', "arguments": {"text": "abc') == [ToolCallDelta(index=0, arguments='{"text": "abc')]


def test_ids_are_the_same_for_the_same_request_and_differ_between_calls() -> None:
    ids = {call_id("r", choice, index) for choice in range(3) for index in range(3)}
    assert len(ids) == 9
    assert call_id("r", 0, 0) == call_id("r", 0, 0)
    assert all(id.startswith("call_") and len(id) == 29 for id in ids)


@pytest.mark.parametrize("name", registry.known("tool_format"))
def test_what_a_format_writes_it_reads(name: str) -> None:
    calls = [
        ToolCall(id="1", name="add", arguments='{"a": 1}'),
        ToolCall(id="2", name="find", arguments='{"q": "ü\\n"}'),
    ]
    format = choose_format(name, None)[0]
    calls = calls if format.parallel else calls[:1]
    written = format.write_calls(calls)
    read = parse(name, written).message.tool_calls
    assert [(c.name, json.loads(c.arguments)) for c in read] == [
        (c.name, json.loads(c.arguments)) for c in calls
    ]


def test_the_format_follows_the_template_and_is_recorded() -> None:
    for name in registry.known("tool_format"):
        for marks in choose_format(name, None)[0].marks:
            assert choose_format("auto", f"... {' ... '.join(marks)} ...")[0].name == name
    chosen, decision = choose_format("auto", None)
    assert (chosen.name, decision.chosen, decision.subject) == ("hermes", "hermes", "tool_format")
    with pytest.raises(UnknownName, match=", ".join(registry.known("tool_format"))):
        choose_format("xml", None)


@pytest.mark.parametrize(
    ("family", "template", "name"),
    [
        ("gemma3", "<start_of_turn>{{ message }}", "tool_code"),
        ("llama", "<|start_header_id|>{{ message }}", "llama3_json"),
        ("llama", "<|im_start|>{{ message }}", "hermes"),
        ("gpt-oss", "<|start|>{{ message }}", "harmony"),
        ("glm4moe", "[gMASK]<|assistant|>", "glm45"),
        ("llama", "<|start_header_id|> <tool_call>", "hermes"),
        ("something new", "<|start_header_id|>", "hermes"),
        ("llama", None, "hermes"),
    ],
)
def test_the_family_decides_where_a_template_of_its_own_presents_no_tools(
    family: str, template: str | None, name: str
) -> None:
    assert choose_format("auto", template, family)[0].name == name


def test_the_prompt_lists_every_tool() -> None:
    tools = [ToolSpec(name="add", description="adds"), ToolSpec(name="find")]
    for name in registry.known("tool_format"):
        prompt = choose_format(name, None)[0].prompt(tools)
        assert '"name": "add", "description": "adds"' in prompt
        assert '"name": "find"' in prompt
        assert "{tools}" not in prompt
        assert "{example}" not in prompt
