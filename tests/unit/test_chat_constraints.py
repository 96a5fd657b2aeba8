"""Constraints: what they let through, what they refuse to compile, and how fast they refuse it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from chat_support import END, tiny_tokenizer
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.request import Constraint
from pentad.model.constraints import ConstraintCompiler
from pentad.model.grammar_checker import GrammarChecker
from pentad.model.matchers import Matchers
from pentad.model.schemas import GrammarLimits, checked_schema, closed
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.toolcalls import choose_format
from pentad.types import OutputFormat, ToolCall, ToolChoice, ToolSpec


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(tiny_tokenizer(), {0, END})


def allows(constraint: Constraint | None, text: str, tokenizer: Tokenizer | None = None) -> bool:
    """Whether the text, and then the end, fits."""
    assert constraint is not None
    codec = tokenizer or tiny_tokenizer()
    for token in [*codec.encode(text, special=True), END]:
        if not int(constraint.mask()[token // 32]) >> token % 32 & 1:
            return False
        constraint.accept(token)
    return True


def answer(compiler: ConstraintCompiler, kind: str, value: Any = None) -> Constraint | None:
    return compiler.for_answer(OutputFormat(kind=kind, value=value))  # type: ignore[arg-type]


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("json_object", None, '{"a":[1,{"b":null}]}', "[1]"),
        ("json_object", None, "{}", '{"a":   1}'),
        ("json_object", None, '{"a": 1, "b": [1, 2]}', '{"a": 1} '),
        ("json_object", None, json.dumps({"a": [{"b": 1}]}, indent=4), "{" + "\n" * 2 + "}"),
        ("json_object", PERSON, '{"name": "Ann"}', '{"city": "Rome"}'),
        ("json_object", {}, '{"name": "Ann"}', "[]"),
        ("json_schema", PERSON, json.dumps({"name": "Ann", "age": 3}, indent=2), '{"name": "Ann"   }'),
        ("json_schema", PERSON, '{"name":"Ann","age":3}', '{"age":3}'),
        ("json_schema", PERSON, '{"name":"Ann"}', '{"name":"Ann","extra":1}'),
        ("json_schema", PERSON, '{"name":"é\\n"}', '{"name":"Ann","age":3.5}'),
        ("json_schema", {"enum": ["a", 2]}, "2", '"b"'),
        ("regex", "^[0-9]{3}$", "123", "12"),
        ("regex", "(a+)+b", "aaab", "aaa"),
        ("regex", r"cost\$", "cost$", "cost"),
        ("choice", ["yes", "no\n"], "no\n", "no"),
        ("grammar", 'start: "x" NUM\nNUM: /[0-9]+/', "x42", "x"),
        ("grammar", 'root ::= "a" | "b"', "b", "c"),
    ],
)
def test_a_format_allows_what_fits_and_nothing_else(
    compiler: ConstraintCompiler, kind: str, value: Any, good: str, bad: str
) -> None:
    assert allows(answer(compiler, kind, value), good)
    assert not allows(answer(compiler, kind, value), bad)


def test_free_text_needs_no_constraint(compiler: ConstraintCompiler) -> None:
    assert answer(compiler, "text") is None


def test_a_forbidden_token_is_an_error_of_the_caller(compiler: ConstraintCompiler) -> None:
    constraint = answer(compiler, "choice", ["yes"])
    assert constraint is not None
    with pytest.raises(ValueError, match="does not fit"):
        constraint.accept(tiny_tokenizer().encode("n", special=False)[0])


def test_a_constraint_is_finished_when_only_the_end_may_follow(compiler: ConstraintCompiler) -> None:
    constraint = answer(compiler, "choice", ["h"])
    assert constraint is not None
    assert not constraint.finished()
    constraint.accept(tiny_tokenizer().encode("h", special=False)[0])
    assert constraint.finished()


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


REFUSED: list[tuple[str, Any, str]] = [
    ("json_schema", {"$ref": "#"}, "allows no text"),
    ("json_schema", {"$ref": "http://example.com/a.json"}, "example.com"),
    ("json_schema", {"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "passwd"),
    ("json_schema", {"enum": list(range(1_000_000))}, "enum"),
    ("json_schema", {"type": "string", "pattern": "a" * 5000}, "pattern"),
    ("json_schema", {"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ("json_schema", {"type": "array", "uniqueItems": True}, "uniqueItems"),
    ("json_schema", {"not": {}}, "not"),
    ("json_schema", {"type": "string", "format": "no-such-format"}, "no-such-format"),
    ("json_schema", deep(1000), "nests deeper"),
    ("json_schema", {"description": "x" * 300_000}, "longer than"),
    ("json_schema", "no object", "not a JSON Schema object"),
    ("json_schema", {"const": float("nan")}, "no JSON"),
    ("json_schema", {"type": 3}, "cannot be enforced"),
    ("regex", "[a", "unclosed"),
    ("regex", "a" * 5000, "regex of more"),
    ("regex", 7, "must be a text"),
    ("choice", [], "at least one"),
    ("choice", ["a"] * 5000, "choices"),
    ("grammar", "start: nothing", "nothing"),
    ("grammar", "start: start", "allows no text"),
    ("grammar", "root ::= " + "(" * 9_000 + '"a"' + ")" * 9_000, "nests too deep"),
    ("grammar", "start: " + "(" * 9_000 + '"a"' + ")" * 9_000, "too deeply nested"),
    (
        "grammar",
        "start: T0\n" + "".join(f"T{i}: T{i + 1}\n" for i in range(4_000)) + 'T4000: "a"',
        "to compile",
    ),
    ("grammar", 'start: %json {"$ref": "http://example.com/a.json"}', "example.com"),
    ("grammar", "x" * 100_000, "grammar of more"),
    ("grammar", 'start: "\ud800"', "surrogate"),
    ("regex", "a\udfff", "surrogate"),
    ("choice", ["\ud800"], "surrogate"),
    ("json_schema", {"enum": ["\ud800"]}, "surrogate"),
    ("json_schema", {"properties": {"\ud800": {}}}, "surrogate"),
]


@pytest.mark.parametrize(("kind", "value", "says"), REFUSED, ids=[f"{k}-{s}" for k, _, s in REFUSED])
def test_bombs_and_what_cannot_be_enforced_are_refused_at_once(
    compiler: ConstraintCompiler, kind: str, value: Any, says: str
) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidRequest, match=says):
        answer(compiler, kind, value)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "((a{1,1000}){1,1000}){1,1000}"),
        ("regex", "(x+x+)+y"),
        ("regex", "(.*a){30}"),
        (
            "json_schema",
            {"$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        ),
        ("json_schema", {"type": "string", "pattern": "(a+)+$"}),
        ("json_schema", {"anyOf": [deep(30)] * 60}),
    ],
)
def test_what_looks_like_a_bomb_is_refused_or_compiled_within_a_second(
    compiler: ConstraintCompiler, kind: str, value: Any
) -> None:
    started = time.process_time()
    with contextlib.suppress(InvalidRequest):
        constraint = answer(compiler, kind, value)
        assert constraint is not None
        assert constraint.mask().any()
    assert time.process_time() - started < 2


BOMB = {"type": "integer", "multipleOf": 1_000_003}
"""Six seconds and a quarter of a gigabyte, in sixty characters."""


@pytest.fixture
def strict() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(compile_s=0.05, processes=1)
    yield checker
    checker.close()


def test_a_compilation_past_its_time_ends_with_its_process(strict: GrammarChecker) -> None:
    compiler = ConstraintCompiler(tiny_tokenizer(), {END}, checker=strict)
    allows(answer(compiler, "regex", "a+"), "a")
    (process,) = strict.processes
    for _ in range(3):  # the second and third are refused from memory
        with pytest.raises(InvalidRequest, match=r"takes more than 0\.05 s or 256 MiB to compile"):
            answer(compiler, "json_schema", BOMB)
        assert strict.processes == ()
    assert not psutil.pid_exists(process)
    assert allows(answer(compiler, "regex", "a+"), "aa")


def test_a_compilation_past_its_memory_ends_with_its_process() -> None:
    small = GrammarChecker(compile_s=30, memory_bytes=8 << 20, processes=1)
    compiler = ConstraintCompiler(tiny_tokenizer(), {END}, checker=small)
    try:
        with pytest.raises(InvalidRequest, match="or 8 MiB to compile"):
            answer(compiler, "json_schema", {"allOf": [{"pattern": f".*a.{{{i}}}"} for i in range(5, 25)]})
        assert small.processes == ()
    finally:
        small.close()


def test_large_grammars_leave_no_memory_behind_and_none_is_blamed_for_another() -> None:
    checker = GrammarChecker(compile_s=30, processes=1)
    try:
        assert checker.check('start: "a"', 300, {}).possible
        (first,) = checker.processes
        before = psutil.Process(first).memory_info().rss
        for length in range(2000, 2040):
            found = checker.check(f"start: /(a|b){{{length}}}/", 300, {})
            assert (found.error, found.possible) == ("", True)
            # One that has grown too much is gone, its successor not yet there.
            held = sum(psutil.Process(process).memory_info().rss for process in checker.processes)
            assert held - before < 24 << 20
    finally:
        checker.close()


def test_compiled_grammars_are_kept_by_the_memory_that_they_take() -> None:
    host = Matchers(tiny_tokenizer(), {END})
    compiler = ConstraintCompiler(tiny_tokenizer(), {END}, host=host)
    answer(compiler, "regex", "a+")
    answer(compiler, "json_schema", {"type": "integer", "multipleOf": 4_001})
    kept = host._cache
    assert len(kept) == 2
    large = max(one.size_bytes for one in kept.values())
    assert large > 100_000
    host._cached_bytes = large - 1
    answer(compiler, "regex", "b+")
    assert len(kept) == 1


def test_a_tool_that_is_a_bomb_costs_its_own_schema_only(strict: GrammarChecker) -> None:
    compiler = ConstraintCompiler(tiny_tokenizer(), {END}, checker=strict)
    bomb = {"properties": {"n": {"allOf": [{"pattern": f".*a.{{{i}}}"} for i in range(5, 25)]}}}
    tools = [ToolSpec(name="add", parameters=TOOLS[0].parameters), ToolSpec(name="bomb", parameters=bomb)]
    format = choose_format("hermes", None)[0]
    constraint, notes = compiler.for_calls(format, tools, ToolChoice(), OutputFormat())
    assert [note.split(":")[0] for note in notes] == ["tool 'bomb' leaves unchecked"]
    assert not allows(constraint, format.write_calls([ToolCall(id="", name="add", arguments='{"a": "no"}')]))


FLAG = {"type": "boolean"}
TOOLS = [
    ToolSpec(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}}),
    ToolSpec(name="find", parameters={"properties": {"q": {"type": "string"}}, "required": ["q"]}),
]
ONE = [ToolCall(id="", name="add", arguments='{"a": 1}')]
TWO = [*ONE, ToolCall(id="", name="find", arguments='{"q": "x"}')]


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama3_json"])
@pytest.mark.parametrize(
    ("choice", "text", "one", "two"),
    [
        (ToolChoice(), True, True, True),
        (ToolChoice(parallel=False), True, True, False),
        (ToolChoice(mode="required"), False, True, True),
        (ToolChoice(mode="required", parallel=False), False, True, False),
        (ToolChoice(mode="named", name="add"), False, True, False),
    ],
)
def test_calls_are_bound_to_their_schema_and_choice(
    compiler: ConstraintCompiler, name: str, choice: ToolChoice, text: bool, one: bool, two: bool
) -> None:
    format = choose_format(name, None)[0]

    def fits(written: str) -> bool:
        return allows(compiler.for_calls(format, TOOLS, choice, OutputFormat())[0], written)

    assert fits("just text") is text
    assert fits(format.write_calls(ONE)) is one
    assert fits(format.write_calls(TWO)) is two
    assert not fits(format.write_calls([ToolCall(id="", name="add", arguments='{"a": "no"}')]))
    assert not fits(format.write_calls([ToolCall(id="", name="sub", arguments="{}")]))
    assert not fits(format.write_calls(ONE) + " and text")
    if format.opening:
        assert fits("text first" + format.write_calls(ONE)) is text


def test_a_bare_object_that_names_a_tool_is_bound_like_a_call(compiler: ConstraintCompiler) -> None:
    format = choose_format("hermes", None)[0]

    def fits(written: str) -> bool:
        return allows(compiler.for_calls(format, TOOLS, ToolChoice(), OutputFormat())[0], written)

    assert fits('{"name": "add", "arguments": {"a": 1}}')
    assert fits('```json\n{\n  "name": "find",\n  "arguments": {"q": "x"}\n}\n```')
    assert not fits('{"name": "add", "arguments": {"a": "x"}}')
    assert not fits('{"name": "add"}')
    assert not fits('{"name": "add", "arguments": {"a": 1}} and text')
    assert fits('{{"name": "add", "arguments": {"a": 1}}}')
    assert fits('```\n{ {\n"name" : "add",\n"arguments" : {"a": 1} } }\n```')
    assert not fits('{{"name": "add", "arguments": {"a": "x"}}}')
    assert not fits(" " * 99 + '{"name": "add", "arguments": {"a": "x"}}')
    assert fits('{"name": "Ann", "age": 3}')
    assert fits('{"arguments": {"a": "x"}, "name": "add"}')
    assert fits('{"city": "Rome"}')
    assert fits("```python\nprint(1)\n```")


def test_an_opening_that_is_a_control_token_triggers_too() -> None:
    state = json.loads(tiny_tokenizer().backend.to_str())
    for token in state["added_tokens"]:
        if token["content"] == "<|im_start|>":
            token["content"] = "[TOOL_CALLS]"
    state["model"]["vocab"]["[TOOL_CALLS]"] = state["model"]["vocab"].pop("<|im_start|>")
    tokenizer = from_json(json.dumps(state))
    compiler = ConstraintCompiler(tokenizer, {END})
    format = choose_format("mistral", None)[0]
    written = "ok" + format.write_calls(TWO)
    started = compiler.for_calls(format, TOOLS, ToolChoice(), OutputFormat())[0]
    assert allows(started, written, tokenizer)
    started = compiler.for_calls(format, TOOLS, ToolChoice(), OutputFormat())[0]
    assert not allows(started, "[TOOL_CALLS]text", tokenizer)


CALL_LIKE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}
"""A format whose answers look like calls."""


def test_with_tools_a_formatted_answer_or_a_call_may_come(compiler: ConstraintCompiler) -> None:
    format = choose_format("hermes", None)[0]
    wanted = OutputFormat(kind="json_schema", value=CALL_LIKE)

    def fits(written: str) -> bool:
        return allows(compiler.for_calls(format, TOOLS, ToolChoice(), wanted)[0], written)

    assert fits('{"name": "add", "arguments": {"a": "x"}}')
    assert fits(format.write_calls(ONE))
    assert not fits(format.write_calls([ToolCall(id="", name="add", arguments='{"a": "x"}')]))
    assert not fits("text")
    with pytest.raises(Incompatible, match="llama3_json"):
        compiler.for_calls(choose_format("llama3_json", None)[0], TOOLS, ToolChoice(), wanted)


DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
"""What pydantic writes for a Decimal."""
CARELESS: list[tuple[Any, str, str, str]] = [
    (
        {"properties": {"a": {"type": "string", "pattern": DECIMAL}}},
        "properties.a.pattern",
        '{"a": "1.5"}',
        "",
    ),
    (
        {"properties": {"a": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}}},
        "",
        '{"a": 3}',
        "",
    ),
    ({"properties": {"a": {"type": "number", "maximum": 1.7e308}}}, "", '{"a": 0.5}', '{"a": "x"}'),
    ({"properties": {"a": {"type": "integer"}}, "required": None}, "", "{}", '{"a": "x"}'),
    ({"properties": {"a": {"type": "any"}, "b": {"type": "int"}}}, "", '{"a": [1], "b": 2}', '{"b": "x"}'),
    ({"properties": {"a": {"$ref": "#/$defs/gone"}, "b": FLAG}}, "properties.a.$ref", '{"a": 1}', '{"b": 1}'),
    ({"properties": {"a": {"$ref": "https://x.example/s"}, "b": FLAG}}, "x.example", '{"a": 1}', '{"b": 1}'),
    (
        {"properties": {"a": {"type": "string", "format": "iban"}}},
        "Unknown format: iban",
        '{"a": "x"}',
        '{"a": 1}',
    ),
    ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems", '{"a": [1]}', '{"a": 1}'),
    (
        {"properties": {"a": {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}}},
        "",
        '{"a": ["x", 1]}',
        '{"a": [1, "x"]}',
    ),
    ({"properties": {"a": FLAG}, "required": ["a", "b"]}, "", '{"a": true, "b": 7}', '{"a": 1, "b": 7}'),
    (
        {"properties": {"a": FLAG}, "minProperties": 2},
        "minProperties: 2",
        '{"a": true, "b": 7}',
        '{"a": 1, "b": 7}',
    ),
    (
        {"required": ["k"], "anyOf": [{"properties": {"a": FLAG}}, {"properties": {"b": FLAG}}]},
        "",
        '{"a": true, "k": 1}',
        '{"a": true}',
    ),
    ({"properties": {"a": "a number", "b": FLAG}}, "properties.a: 'a number'", '{"a": 1}', '{"b": 1}'),
    (
        {"properties": {"a": {"enum": None}, "b": {"anyOf": []}}},
        "properties.b.anyOf",
        '{"a": 1, "b": 2}',
        "[]",
    ),
    ({"properties": {"a": {"type": "string", "minLength": 2.0}}}, "", '{"a": "xy"}', '{"a": "x"}'),
    (
        {"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}},
        "oneOf",
        '{"a": 1}',
        '{"a": "x"}',
    ),
    ({"$schema": "https://x.example/draft", "properties": {"a": FLAG}}, "", '{"a": true}', '{"a": 1}'),
    ({"type": "string"}, "its type is 'string'", '{"a": 1}', '"x"'),
    (["no", "object"], "a list, not a JSON Schema object", '{"a": 1}', "[]"),
    (True, "a bool, not a JSON Schema object", '{"a": 1}', "[]"),
    (None, "", '{"a": 1}', "[]"),
    ({"const": float("nan")}, "no JSON", '{"a": 1}', "[]"),
    ({"properties": {"\ud800": {}}}, "surrogate", '{"a": 1}', "[]"),
    ({"properties": {"a": {"enum": list(range(3000))}}}, "properties.a.enum", '{"a": 1}', "[]"),
    (deep(60), "nests deeper", '{"a": {}}', "[]"),
]
"""Schemas as servers and libraries send them; what is said of each; arguments that fit and that do not."""


@pytest.mark.parametrize(("schema", "says", "good", "bad"), CARELESS, ids=[str(c[0])[:60] for c in CARELESS])
def test_a_careless_tool_schema_is_followed_as_far_as_it_goes_and_spoils_nothing(
    compiler: ConstraintCompiler, schema: Any, says: str, good: str, bad: str
) -> None:
    tools = [ToolSpec(name="odd", parameters=schema), TOOLS[0]]
    format = choose_format("hermes", None)[0]

    def fits(name: str, arguments: str) -> bool:
        constraint, notes = compiler.for_calls(format, tools, ToolChoice(), OutputFormat())
        assert [note.startswith("tool 'odd' leaves unchecked: ") for note in notes] == [True] * bool(says)
        assert says in "".join(notes)
        return allows(constraint, format.write_calls([ToolCall(id="", name=name, arguments=arguments)]))

    assert fits("odd", good)
    assert not bad or not fits("odd", bad)
    assert fits("add", '{"a": 1}')
    assert not fits("add", '{"a": "x"}')


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {"type": "integer"}}, "required": None}, '{"a": 1}', '{"a": "x"}'),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "-5", "x"),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, '["x"]', "[1]"),
        ({"properties": {"a": FLAG}, "required": ["b"]}, '{"b": 1}', "{}"),
        ({"type": "object", "properties": {"a": FLAG, "b": FLAG}, "required": ["a", "b"], "minProperties": 2},
         '{"a": true, "b": true}', '{"a": true}'),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2023-02-29"'),
        ({"type": "string", "format": "date"}, '"2000-02-28"', '"1900-02-29"'),
        ({"type": "string", "format": "date"}, '"3582-12-31"', '"3582-11-31"'),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T01:02:03Z"', '"3582-02-29T01:02:03Z"'),
    ],
)  # fmt: skip
def test_a_response_schema_with_one_plain_meaning_is_enforced(
    compiler: ConstraintCompiler, schema: Any, good: str, bad: str
) -> None:
    assert allows(answer(compiler, "json_schema", schema), good)
    assert not allows(answer(compiler, "json_schema", schema), bad)


def test_as_many_tools_as_may_be_offered_are_all_followed(compiler: ConstraintCompiler) -> None:
    long = {f"{word}_of_the_thing": {"type": "string"} for word in ("name", "place")}
    many = [ToolSpec(name=f"tool_number_{i}", parameters={"properties": long}) for i in range(256)]
    format = choose_format("hermes", None)[0]
    constraint, notes = compiler.for_calls(format, many, ToolChoice(), OutputFormat())
    assert not notes
    call = ToolCall(id="", name="tool_number_255", arguments='{"name_of_the_thing": 1}')
    assert not allows(constraint, format.write_calls([call]))


def test_too_many_tools_are_refused(compiler: ConstraintCompiler) -> None:
    many = [ToolSpec(name=f"t{i}") for i in range(300)]
    with pytest.raises(InvalidRequest, match="300 tools"):
        compiler.for_calls(choose_format("hermes", None)[0], many, ToolChoice(), OutputFormat())


def test_objects_are_closed_where_that_only_narrows() -> None:
    inner = {"properties": {"b": {}}}
    assert closed({"properties": {"a": inner}}) == {
        "properties": {"a": {"properties": {"b": {}}, "additionalProperties": False}},
        "additionalProperties": False,
    }
    for kept in (
        {"allOf": [inner, {"properties": {"c": {}}}]},
        {"properties": {"a": {}}, "anyOf": [inner]},
        {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
        {"type": "object"},
    ):
        assert closed(kept) == kept


def test_a_checked_schema_is_a_plain_copy() -> None:
    schema = {"enum": ("a", "b")}
    assert checked_schema(schema, GrammarLimits(), "x") == {"enum": ["a", "b"]}
