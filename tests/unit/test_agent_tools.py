"""Tools: functions and programs, their arguments, deadlines, results and rules."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import sys
import threading
import time
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from agent_support import context, run
from pentad.agent.tools.base import InDoubt, Reply, Tool, Toolbox, ToolContext
from pentad.agent.tools.command import command_tool
from pentad.agent.tools.functions import tool
from pentad.agent.tools.invocation import Outcome, ToolRules, parse
from pentad.agent.tools.invocation import call as carry_out
from pentad.agent.tools.schema import check_arguments, check_schema, harmless_schema
from pentad.errors import Forbidden, InvalidRequest, ToolFailed, UnknownName


def use(made: Tool, arguments: dict[str, Any] | None = None, **fields: Any) -> Outcome:
    return run(carry_out(made, parse(made, json.dumps(arguments or {})), context(**fields)))


def program(code: str, **options: Any) -> Tool:
    return command_tool(
        "program",
        [sys.executable, "-c", code],
        description="Runs.",
        parameters={"type": "object", "properties": {"x": {"type": "integer"}}},
        **options,
    )


@tool(effects="none")
def book(
    city: str,
    nights: Annotated[int, Field(ge=1)],
    kind: Literal["single", "double"] = "single",
    *,
    context: ToolContext,
    guests: list[str] | None = None,
) -> dict[str, Any]:
    """Books a room.

    Goes to the hotel nearest to the station.

    Args:
        city: where, in English
            or French.
        nights (int): how long.
    """
    return {"city": city, "nights": nights, "kind": kind, "guests": guests, "key": context.key}


@pytest.mark.row("tool-functional", "mechanism")
def test_annotations_and_docstring_become_the_schema() -> None:
    assert (book.name, book.description) == ("book", "Books a room.")
    assert book.parameters["required"] == ["city", "nights"]
    properties = book.parameters["properties"]
    assert properties["city"] == {"type": "string", "description": "where, in English or French."}
    assert properties["nights"] == {"type": "integer", "minimum": 1, "description": "how long."}
    assert properties["kind"]["enum"] == ["single", "double"]
    assert "context" not in properties
    assert book.parameters["additionalProperties"] is False


@pytest.mark.row("tool-functional", "mechanism")
def test_arguments_arrive_typed_and_the_context_is_filled_in() -> None:
    outcome = use(book, {"city": "Lyon", "nights": 2})
    assert json.loads(outcome.content) == {
        "city": "Lyon",
        "nights": 2,
        "kind": "single",
        "guests": None,
        "key": "run:1:0",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "are no JSON"),
        ("[]", "no JSON object"),
        ("[" * 50_000, "are no JSON"),
        ('{"city": "Lyon"}', "'nights' is a required property"),
        ('{"city": "Lyon", "nights": 0}', "0 is less than the minimum of 1"),
        ('{"city": "Lyon", "nights": "two"}', "not of type 'integer'"),
        ('{"city": "Lyon", "nights": 1, "kind": "suite"}', "is not one of"),
        ('{"city": "Lyon", "nights": 1, "stars": 5}', "Additional properties"),
    ],
)
def test_wrong_arguments_are_refused_in_words_for_the_model(text: str, says: str) -> None:
    with pytest.raises(ToolFailed, match=says):
        parse(book, text)


def test_what_only_pydantic_knows_is_checked_too() -> None:
    @tool(effects="none")
    def visit(url: Annotated[str, Field(pattern="^https")]) -> str:
        """Visits."""
        return url

    outcome = use(visit, {"url": "ftp://x"})
    assert outcome.status == "failed"
    assert "invalid arguments for 'visit': url: string should match pattern" in outcome.content


def test_a_function_that_cannot_be_a_tool_is_refused_when_it_is_declared() -> None:
    def untyped(x):  # type: ignore[no-untyped-def]
        """No."""

    def variadic(*x: int) -> None:
        """No."""

    with pytest.raises(TypeError, match="'x' has no annotation"):
        tool(untyped)
    with pytest.raises(TypeError, match="cannot be passed by name"):
        tool(variadic)


def test_a_plain_function_runs_beside_the_event_loop() -> None:
    @tool(effects="none")
    def where() -> str:
        """Where am I?"""
        return threading.current_thread().name

    assert use(where).content == "tool"


@pytest.mark.parametrize(
    ("effects", "status"), [("none", "failed"), ("keyed", "unknown"), ("unkeyed", "unknown")]
)
def test_a_function_that_hangs_is_given_up_at_its_deadline(effects: Any, status: str) -> None:
    release = threading.Event()

    @tool(effects=effects, timeout_s=0.05)
    def hang() -> None:
        """Hangs."""
        release.wait(20)

    outcome = use(hang)
    release.set()
    assert outcome.status == status
    assert "0.05 s" in outcome.content


def test_the_runs_deadline_counts_too() -> None:
    @tool(effects="none", timeout_s=60)
    async def hang() -> None:
        """Hangs."""
        await asyncio.Event().wait()

    assert "no result within" in use(hang, deadline_s=time.monotonic() + 0.05).content


def test_a_lost_connection_leaves_an_unrepeatable_call_in_doubt() -> None:
    @tool(effects="unkeyed")
    async def lose() -> None:
        """Loses."""
        raise InDoubt("the line went dead")

    outcome = use(lose)
    assert outcome.status == "unknown"
    assert outcome.content.startswith("It is unknown whether 'lose' happened (the line went dead)")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain", "plain"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\udcff\udcfe"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (None, "null"),
        (12.5, "12.5"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_results_become_text(result: Any, text: str) -> None:
    @tool(effects="none")
    def give() -> Any:
        """Gives."""
        return result

    assert use(give) == Outcome(status="ok", content=text)


def test_a_result_that_is_no_text_is_the_tools_failure() -> None:
    @tool(effects="none")
    def give() -> Any:
        """Gives."""
        return object()

    assert use(give).status == "failed"


def test_a_huge_result_is_cut_with_a_marker() -> None:
    @tool(effects="none", max_result_bytes=100)
    def flood() -> str:
        """Floods."""
        return "é" * 25_000_000

    outcome = use(flood)
    assert outcome.content == "é" * 50 + "\n[cut: 49999900 of 50000000 bytes left out]"
    assert outcome.cut_bytes == 49_999_900


def test_a_program_gets_arguments_and_key_and_gives_its_output() -> None:
    code = (
        "import json, os, sys; print(json.load(sys.stdin)['x'] * 2, os.environ['PENTAD_TOOL_KEY'], "
        "os.environ.get('SECRET'))"
    )
    os.environ["SECRET"] = "hush"
    try:
        assert use(program(code), {"x": 21}).content == "42 run:1:0 None\n"
    finally:
        del os.environ["SECRET"]


def test_a_program_that_fails_says_why() -> None:
    outcome = use(program("import sys; sys.exit('no more paper')"))
    assert (outcome.status, outcome.content) == ("failed", "'program' ended with code 1: no more paper")


def test_a_program_that_ignores_signals_and_forks_is_killed_with_its_children(tmp_path: pathlib.Path) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = os.fork()\nopen({str(tmp_path)!r} + '/' + str(os.getpid()), 'w')\n"
        "time.sleep(60)\n"
    )
    outcome = use(program(code, timeout_s=1.0, effects="none"))
    assert outcome.status == "failed"
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert len(pids) == 2
    deadline = time.monotonic() + 5
    while any(_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_that_floods_is_read_in_bounded_memory() -> None:
    code = "import sys\nfor _ in range(50): sys.stdout.buffer.write(b'\\xff\\x00' * 50_000)"
    outcome = use(program(code, max_result_bytes=1000))
    kept, _, marker = outcome.content.rpartition("\n")
    assert kept.encode("utf-8", "surrogateescape") == b"\xff\x00" * (len(kept) // 2) + b"\xff" * (
        len(kept) % 2
    )
    assert marker.endswith(f"of {50 * 100_000} bytes left out]")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array"}, "no schema of type object"),
        ({"properties": {"a": {"$ref": "http://evil/schema"}}}, "refers to 'http://evil/schema'"),
        ({"properties": {"a": {"enum": ["x" * 10] * 10_000}}}, "over 65536 bytes"),
        ({"a": json.loads("[" * 40 + "]" * 40)}, "nested deeper than 32"),
    ],
)
def test_hostile_schemas_are_refused(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_schema("t", schema)


def test_patterns_of_others_are_not_run_here() -> None:
    started = time.monotonic()
    check_arguments("t", {"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 60 + "!"})
    assert time.monotonic() - started < 5


def test_endless_references_are_the_tools_failure() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    with pytest.raises(ToolFailed, match="too costly"):
        check_arguments("t", schema, {})


def test_rules_deny_by_pattern() -> None:
    rules = ToolRules(deny=("files__*", "exact"))
    rules.check("math")
    rules.check("exactly")
    for name in ("files__delete", "exact"):
        with pytest.raises(Forbidden, match="policy denies"):
            rules.check(name)


def test_a_toolbox_keeps_names_unique_and_lists_them() -> None:
    box = Toolbox([book])
    with pytest.raises(ValueError, match="already a tool 'book'"):
        box.add(book)
    with pytest.raises(UnknownName, match="known: book"):
        box.get("cook")


DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 30)}
NESTING = {"n": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}}}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"allOf": [{"$ref": "#/$defs/d29"}], "$defs": {**DOUBLING, "d0": {}}}, "more than 4000 schemas"),
        ({"properties": {"x": {"$ref": "#/$defs/d29"}}, "$defs": {**DOUBLING, "d0": {}}}, "more than 4000"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "refers to itself without end"),
        ({"$ref": "#/a/0", "a": [{"$ref": f"#/a/{i + 1}"} for i in range(2400)]}, "too long a chain"),
        ({"x": {1, 2}}, "is no JSON"),
    ],
)
def test_schemas_that_multiply_are_refused_when_they_are_listed(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_schema("t", schema)


def test_schemas_of_recursive_data_are_none_of_those() -> None:
    check_schema("t", {"$ref": "#/$defs/n", "$defs": NESTING})
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    check_schema("t", tree)
    check_arguments("t", tree, {"left": {"left": {}}})
    with pytest.raises(ToolFailed, match=r"left\.left: 7 is not of type 'object'"):
        check_arguments("t", tree, {"left": {"left": 7}})


def test_arguments_that_make_a_schema_costly_are_given_up() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"x": deep}
    with pytest.raises(ToolFailed, match="too costly"):
        check_arguments("t", {"$ref": "#/$defs/n", "$defs": NESTING}, deep)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "any"},
        {"required": None},
        {"properties": {"a": {"$ref": "#/nowhere"}}},
        {"properties": 3},
        {"minProperties": "x"},
        {"properties": {"a": {"enum": None}}},
        {"properties": {"a": {"items": [{"type": "string"}]}}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"propertyNames": {"pattern": "^(a+)+$"}},
    ],
)
def test_what_is_no_json_schema_is_not_enforced(schema: dict[str, Any]) -> None:
    check_arguments("t", schema, {"a": 1, "a" * 60 + "!": 2})
    with pytest.raises(ToolFailed, match="'b' is a required property"):
        check_arguments("t", {"allOf": [schema, {"required": ["b"]}]}, {"a": 1})


def test_prose_of_schemas_loses_what_cannot_be_seen_and_the_rest_may_have_none() -> None:
    hidden = "\u200b\U000e0041"
    schema = {"properties": {"x": {"description": f"A{hidden} word.", "enum": ["a", "b"]}}, "title": hidden}
    clean = harmless_schema("t", schema)
    assert clean == {"properties": {"x": {"description": "A word.", "enum": ["a", "b"]}}, "title": ""}
    for bad in ({"properties": {f"x{hidden}": {}}}, {"enum": [f"a{hidden}"]}, {"default": hidden}):
        with pytest.raises(InvalidRequest, match="invisible characters in"):
            harmless_schema("t", bad)


def test_a_question_to_a_person_stops_the_clock_of_the_call() -> None:
    async def question(text: str, _: Any) -> Reply:
        await asyncio.sleep(0.5)
        return Reply(action="accept", content={"said": text})

    @tool(timeout_s=0.3)
    async def slow(context: ToolContext) -> str:
        """Asks."""
        assert context.question is not None
        reply = await context.question("well?", None)
        return f"{reply.action} {reply.content}"

    async def scenario() -> None:
        outcome = await carry_out(slow, {}, context(question=question))
        assert outcome.content == "accept {'said': 'well?'}"

    run(scenario())
