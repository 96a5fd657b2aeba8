"""Golden calls of the built-in tools, twenty each, without network or model."""

from __future__ import annotations

import datetime
import json
import pathlib
from typing import Any

import pytest

from agent_support import call, context, harness, run, spec
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.invocation import Outcome, parse
from pentad.agent.tools.invocation import call as carry_out
from pentad.errors import InvalidRequest, NotFound, ToolFailed
from pentad.registry import known, load
from pentad.testing.agents import scripted_models

DOCUMENTS = pathlib.Path(__file__).parent.parent / "data" / "agent_documents"
FIVE = ("calculator", "calendar", "question_answering", "search", "translation")
TODAY = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC).timestamp()


def built(name: str, *, embedder: bool = False, **options: Any) -> Tool:
    models, _ = scripted_models([], embedder=embedder)
    made: Tool = load("tool", name)(ToolServices(models=models), **options)
    return made


def use(tool: Tool, ask: Any = None, **arguments: Any) -> Outcome:
    checked = parse(tool, json.dumps(arguments))
    return run(carry_out(tool, checked, context(wall=lambda: TODAY, ask=ask)))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * 9", "108"),
        ("347 times 28", "9716"),
        ("123456789 * 987654321", "121932631112635269"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.333333333333333"),
        ("2 ^ 100", "1267650600228229401496703205376"),
        ("2**0.5", "1.4142135623731"),
        ("(1 + 2) * (3 - 4.5)", "-4.5"),
        ("-2 ^ 2", "-4"),
        ("17 // 5 + 17 mod 5", "5"),
        ("sqrt(144) + abs(-3)", "15"),
        ("max(1,234, 7)", "234"),
        ("1,234 + 1", "1235"),
        ("15% * 200", "30"),
        ("5!", "120"),
        ("12.5% of 640", "80"),
        ("12.5 percent of 640", "80"),
        ("5% + 3%", "0.08"),
        ("640 + 10% of 640", "704"),
        ("3 * 10% of 20% of 500", "30"),
        ("17 modulo 5", "2"),
        ("round(2.5) + round(-2.5)", "0"),
        ("gcd(84, 36) * lcm(4, 6)", "144"),
        ("900 divided by 36 =", "25"),
        ("$12.50 x 4", "50"),
        ("mean(2, 4, 9)", "5"),
        ("log(1000) + ln(e)", "4"),
    ],
)
@pytest.mark.row("tool-builtin-five", "mechanism")
def test_calculator(expression: str, value: str) -> None:
    outcome = use(built("calculator"), expression=expression)
    assert outcome == Outcome(status="ok", content=f"{expression} = {value}")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12.5 % 640", "12.5 % of 640 = 80"),
        ("15 % (200 + 60)", "15 % of (200 + 60) = 39"),
        ("8%sqrt(100)", "8% of sqrt(100) = 0.8"),
        ("640 * 12.5%", "640 * 12.5% = 80"),
    ],
)
def test_a_percentage_of_something_is_told_as_it_was_read(expression: str, result: str) -> None:
    assert use(built("calculator"), expression=expression).content == result


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1 / 0", "division by zero"),
        ("__import__('os')", "not arithmetic"),
        ("9 ** 9 ** 9", "too large"),
        ("2 ^ 100000", "too large"),
        ("2000!", "0 to 1000"),
        ("(" * 200 + "1" + ")" * 200, "nested deeper"),
        ("1 +", "ends too early"),
        ("(1", "closing parenthesis"),
        ("1 2", "not expected"),
        ("sqrt(-1)", "not real"),
        ("foo(1)", "functions: sqrt"),
        ("sqrt(1, 2)", "does not take 2"),
        ("", "empty"),
        ("1" * 600, "600 characters"),
        ("(-8) ^ 0.5", "undefined"),
        ("17 % 5", "17% of 5, or 17 mod 5"),
        ("640 + 10%", "not said of what"),
        ("100 - 5%", "not said of what"),
        ("% 5", "'%' is not expected"),
        ("2027-03-14", "is a date"),
    ],
)
def test_calculator_says_what_it_cannot_do(expression: str, says: str) -> None:
    outcome = use(built("calculator"), expression=expression)
    assert outcome.status == "failed"
    assert says in outcome.content


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"operation": "today"}, "2026-11-22 (Sunday)"),
        ({"operation": "weekday", "date": "2026-12-25"}, "2026-12-25 is a Friday"),
        ({"operation": "weekday", "date": "2000-02-29"}, "2000-02-29 is a Tuesday"),
        ({"operation": "weekday", "date": "1969-07-20"}, "1969-07-20 is a Sunday"),
        ({"operation": "weekday", "date": "0001-01-01"}, "0001-01-01 is a Monday"),
        ({"operation": "weekday", "date": "9999-12-31"}, "9999-12-31 is a Friday"),
        (
            {"operation": "days_between", "start": "2026-03-01", "end": "2026-04-15"},
            "from 2026-03-01 to 2026-04-15 there are 45 days",
        ),
        (
            {"operation": "days_between", "start": "2024-02-28", "end": "2024-03-01"},
            "from 2024-02-28 to 2024-03-01 there are 2 days",
        ),
        (
            {"operation": "days_between", "start": "2023-02-28", "end": "2023-03-01"},
            "from 2023-02-28 to 2023-03-01 there are 1 days",
        ),
        (
            {"operation": "days_between", "start": "2026-05-05", "end": "2026-05-05"},
            "from 2026-05-05 to 2026-05-05 there are 0 days",
        ),
        (
            {"operation": "days_between", "start": "2026-05-05", "end": "2026-05-01"},
            "from 2026-05-05 to 2026-05-01 there are -4 days",
        ),
        (
            {"operation": "days_between", "start": "1900-01-01", "end": "2000-01-01"},
            "from 1900-01-01 to 2000-01-01 there are 36524 days",
        ),
        (
            {"operation": "add_days", "date": "2026-11-22", "days": 30},
            "2026-11-22 plus 30 days is 2026-12-22 (Tuesday)",
        ),
        (
            {"operation": "add_days", "date": "2024-02-28", "days": 1},
            "2024-02-28 plus 1 days is 2024-02-29 (Thursday)",
        ),
        (
            {"operation": "add_days", "date": "2026-01-01", "days": -1},
            "2026-01-01 plus -1 days is 2025-12-31 (Wednesday)",
        ),
        (
            {"operation": "add_days", "date": "2026-01-01", "days": 0},
            "2026-01-01 plus 0 days is 2026-01-01 (Thursday)",
        ),
        (
            {"operation": "add_days", "date": "2026-01-01", "days": 10_000_000},
            "10000000 days from 2026-01-01 is outside the years 1 to 9999",
        ),
        ({"operation": "weekday", "date": "2026-02-30"}, "'2026-02-30' is no date; write YYYY-MM-DD"),
        ({"operation": "weekday", "date": "2026-13-01"}, "'2026-13-01' is no date; write YYYY-MM-DD"),
        ({"operation": "weekday", "date": "tomorrow"}, "'tomorrow' is no date; write YYYY-MM-DD"),
    ],
)
@pytest.mark.row("tool-builtin-five", "mechanism")
def test_calendar(arguments: dict[str, Any], result: str) -> None:
    assert use(built("calendar"), **arguments).content == result


QUESTIONS = [
    ("Who founded the library?", "library.md", "Ada Brook"),
    ("In which year was the library founded?", "library.md", "1912"),
    ("library opening days", "library.md", "Tuesday to Saturday"),
    ("When does the library close in August?", "library.md", "two in the afternoon"),
    ("How many books may a reader borrow?", "library.md", "twelve books"),
    ("fine for a late book", "library.md", "twenty cents"),
    ("Do children pay fines?", "library.md", "Children pay no fines"),
    ("seats in the reading room", "library.md", "forty seats"),
    ("oldest map in the collection", "library.md", "1688"),
    ("How tall is the lighthouse?", "harbour.txt", "nineteen metres"),
    ("When was the north pier built?", "harbour.txt", "1854"),
    ("ferries to Soren", "harbour.txt", "seven, eleven and sixteen"),
    ("How long is the crossing to the island?", "harbour.txt", "fifty minutes"),
    ("Do dogs pay on the ferry?", "harbour.txt", "Dogs travel free"),
    ("fish market hours", "harbour.txt", "six on weekdays"),
    ("highest point of the Kestrel hills", "hills.md", "Gorse Top"),
    ("How is the path from the station marked?", "hills.md", "yellow stones"),
    ("beds in the shepherd's hut", "hills.md", "six beds"),
    ("Who keeps the key of the hut?", "hills.md", "Tom Haller"),
    ("snakes on the south slope: adders", "hills.md", "Adders are common"),
]


@pytest.mark.parametrize("embedder", [False, True])
@pytest.mark.parametrize(("query", "source", "says"), QUESTIONS)
@pytest.mark.row("tool-builtin-five", "mechanism")
def test_search(query: str, source: str, says: str, embedder: bool) -> None:
    outcome = use(built("search", folder=str(DOCUMENTS), k=3, embedder=embedder), query=query)
    assert says in " ".join(outcome.content.split())
    assert f"[{source}]" in outcome.content


@pytest.mark.parametrize(("question", "source", "says"), QUESTIONS)
@pytest.mark.row("tool-builtin-five", "mechanism")
def test_question_answering_reads_the_right_passage_to_the_model(
    question: str, source: str, says: str
) -> None:
    asked: list[str] = []

    async def ask(system: str, text: str, max_tokens: int) -> str:
        asked.append(text)
        assert "passages" in system
        return says

    outcome = use(built("question_answering", folder=str(DOCUMENTS), k=2), ask, question=question)
    assert says in " ".join(asked[0].split())
    assert asked[0].endswith(f"Question: {question}")
    assert outcome.content.startswith(f"{says} (from ")
    assert source in outcome.content


LANGUAGES = ("French", "German", "Spanish", "Italian", "Dutch")
PHRASES = ("good morning", "two tickets, please", "Where is the station?", 'say "no" {twice}\nplease')


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.row("tool-builtin-five", "mechanism")
def test_translation_asks_the_model_for_the_text_alone(language: str, phrase: str) -> None:
    async def ask(system: str, text: str, max_tokens: int) -> str:
        assert system == f"Translate the text into {language}. Answer with the translation only."
        return f"<{text}>"

    assert use(built("translation"), ask, text=phrase, language=language).content == f"<{phrase}>"


@pytest.mark.row("tool-builtin-five", "mechanism")
def test_any_agent_can_call_all_five_by_name(tmp_path: pathlib.Path) -> None:
    assert set(FIVE) <= set(known("tool"))
    options = {name: {"folder": str(DOCUMENTS)} for name in ("search", "question_answering")}
    calls = [
        call("calculator", ident="1", expression="6 * 7"),
        call("calendar", ident="2", operation="weekday", date="2026-12-25"),
        call("search", ident="3", query="lighthouse"),
        call("question_answering", ident="4", question="How tall is the lighthouse?"),
        call("translation", ident="5", text="yes", language="French"),
    ]

    async def scenario() -> None:
        turns = [calls, ["nineteen metres"], ["oui"], ["done"]]
        async with harness(tmp_path, turns) as h:
            state = await h.work(spec(tools=FIVE, tool_options=options))
            results = state.exchanges[0].results
            assert [results[i].status for i in range(5)] == ["ok"] * 5
            assert results[0].content == "6 * 7 = 42"
            assert {results[3].content[:8], results[4].content[:8]} & {"nineteen", "oui"}

    run(scenario())


def test_a_changed_document_is_found_at_once(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.md").write_text("apples are red")
    tool = built("search", folder=str(tmp_path))
    assert "red" in use(tool, query="apples").content
    assert use(tool, query="pears").content == "Nothing was found."
    (tmp_path / "b.txt").write_text("pears are green")
    assert "[b.txt] pears are green" in use(tool, query="pears").content


def test_search_reads_nothing_outside_its_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret.txt").write_text("the secret password is tulip")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "up").symlink_to(tmp_path)
    (inside / "open.md").write_text("nothing here")
    assert "tulip" not in use(built("search", folder=str(inside)), query="secret password").content


def test_wrong_options_are_refused_with_the_field(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match=r"tool_options\.search\.folder"):
        built("search")
    with pytest.raises(NotFound, match="no folder"):
        built("search", folder=str(tmp_path / "none"))


def test_arguments_are_checked_before_the_call() -> None:
    with pytest.raises(ToolFailed, match="is not of type 'string'"):
        use(built("calculator"), expression=3)
    with pytest.raises(ToolFailed, match="'expression' is a required property"):
        use(built("calculator"))
    with pytest.raises(ToolFailed, match="is not valid under any of the given schemas"):
        use(built("calendar"), operation="weekday")
