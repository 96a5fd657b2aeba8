"""Functions as learnable weights: edits by tool calls, tried on cases, rolled back where they harm."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from agent_support import call, context, harness, run, spec
from pentad.agent.loading import load_agent
from pentad.agent.tool_training.cases import SolvableCase, solvable_cases, solves
from pentad.agent.tool_training.edits import Bench
from pentad.agent.tool_training.trainer import OPTIMIZER, Epoch, ToolTrainer
from pentad.agent.tools.files import names_file
from pentad.agent.tools.function_files import (
    FunctionFile,
    FunctionVersion,
    LearnedFunction,
    fault,
    function_tools,
    read_functions,
    write_functions,
)
from pentad.choice import Choice
from pentad.errors import InvalidRequest, ToolFailed
from pentad.types import Request, ToolCall

MONTY = Choice(name="monty")
SIDES = {
    "type": "object",
    "properties": {"base": {"type": "number"}, "height": {"type": "number"}},
    "required": ["base", "height"],
}
RIGHT = "def area(base, height):\n    return base * height / 2\n"
WRONG = "def area(base, height):\n    return base * height\n"
BROKEN = "def area(base, height):\n    return base / 0\n"
CASES = (
    SolvableCase(request="Area of a triangle of base 6 and height 3?", answer="9"),
    SolvableCase(request="Area of a triangle of base 4 and height 5?", answer="10"),
    SolvableCase(request="Which shape has three sides?", answer="triangle"),
)


def area(code: str = RIGHT) -> LearnedFunction:
    return LearnedFunction(name="area", description="Area of a triangle.", parameters=SIDES, code=code)


def edit(action: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="c1", name=action, arguments=json.dumps(arguments))


def adding(code: str = RIGHT) -> ToolCall:
    return edit("add_function", name="area", description="Area of a triangle.", parameters=SIDES, code=code)


def revising(code: str) -> ToolCall:
    return edit("revise_function", name="area", code=code, why="to see")


class Model:
    """Calls `area` where it is on offer and says what it returned, else a guess; edits as it is told.

    Args:
        epochs: for each run of the optimizer its edits, one per step.
    """

    def __init__(self, *epochs: Sequence[ToolCall]) -> None:
        self._epochs = [list(edits) for edits in epochs]
        self.read: list[str] = []
        """What the optimizer was told at the start of each epoch."""
        self._running: list[ToolCall] = []

    def __call__(self, request: Request) -> list[Any]:
        messages = request.messages or ()
        results = [m.content for m in messages if m.role == "tool"]
        offered = {tool.name for tool in request.tools}
        if "add_function" in offered:
            if not results:
                self.read.append(next(m.content for m in messages if m.role == "user"))
                self._running = self._epochs.pop(0) if self._epochs else []
            return [self._running.pop(0)] if self._running else ["I am done."]
        asked = next(m.content for m in messages if m.role == "user")
        numbers = [int(word.strip("?")) for word in asked.split() if word.strip("?").isdigit()]
        if not numbers:
            return ["A triangle."]
        if results:
            return [f"It is {results[-1]}."]
        if "area" in offered:
            return [call("area", base=numbers[0], height=numbers[1])]
        return ["It is 1."]


def trained(
    folder: pathlib.Path, model: Model, **options: Any
) -> tuple[Any, FunctionFile, list[Epoch], set[str]]:
    epochs: list[Epoch] = []
    file, journal = folder / "own.functions.json", f"{len(list(folder.iterdir()))}.db"

    async def scenario() -> Any:
        async with harness(folder, [model], repeat=True, journal=journal) as h:
            trainer = ToolTrainer(h.runtime, spec(sandbox=MONTY), CASES, file, tell=epochs.append, **options)
            made = await trainer.train()
            return made, {row.agent for row in h.journal.runs()}

    made, agents = run(scenario(), 60.0)
    return made, read_functions(file), epochs, agents


@pytest.mark.row("tool-agentoptimizer", "mechanism")
def test_edits_that_help_are_kept_and_those_that_harm_are_rolled_back(tmp_path: pathlib.Path) -> None:
    model = Model([adding(WRONG)], [revising(RIGHT)])
    wrong, file, _, _ = trained(tmp_path, model, epochs=1)
    # The wrong function solves no case more, and none less.
    assert (wrong.initial.solved, wrong.solved, wrong.current) == (1, 1, 1)
    model = Model([revising(RIGHT)], [revising(BROKEN)], [edit("remove_function", name="area")])
    made, file, epochs, _ = trained(tmp_path, model, epochs=3)
    assert made.why == "every case is solved"
    assert [(e.version, e.edits, e.solved, e.outcome) for e in epochs] == [
        (1, (), 1, "initial"),
        (2, ("revise area",), 3, "kept"),
    ]
    assert file.current == 2
    assert file.version().functions == (area(RIGHT),)
    assert [(v, e.action, o) for v, e, o in file.history("area")] == [
        (1, "add", "kept"),
        (2, "revise", "kept"),
    ]


@pytest.mark.row("tool-agentoptimizer", "mechanism", claims=(2,))
@pytest.mark.parametrize("harm", [revising(BROKEN), edit("remove_function", name="area")])
def test_a_harmful_edit_leaves_the_functions_as_they_were(tmp_path: pathlib.Path, harm: ToolCall) -> None:
    file = tmp_path / "own.functions.json"
    write_functions(file, FunctionFile().put(FunctionVersion(version=1, functions=(area(),)), current=True))
    hard = SolvableCase(request="How far is it to 9 moons of 8 stars?", answer="5")
    epochs: list[Epoch] = []
    model = Model([harm], [revising(BROKEN)], [adding()])

    async def scenario() -> Any:
        async with harness(tmp_path, [model], repeat=True) as h:
            trainer = ToolTrainer(
                h.runtime, spec(sandbox=MONTY), (*CASES, hard), file, patience=2, tell=epochs.append
            )
            return await trainer.train()

    made = run(scenario(), 60.0)
    assert [e.outcome for e in epochs] == ["initial", "rolled back", "rolled back"]
    assert (made.current, made.solved, made.why) == (1, 3, "the last 2 epochs gained nothing")
    kept = read_functions(file)
    assert kept.version().functions == (area(),)
    assert [one.outcome for one in kept.versions[2:]] == ["rolled back", "rolled back"]
    assert all(one.source == 1 for one in kept.versions[2:])
    # What was rolled back is told, and what came of the cases, failed ones first.
    assert (
        "These edits were tried last and rolled back, for 1 cases were solved with them and 3"
        in model.read[1]
    )
    assert model.read[0].index("[failed] How far") < model.read[0].index("[solved] Area of")
    assert "called area" in model.read[0]


def test_a_model_that_edits_nothing_ends_the_training(tmp_path: pathlib.Path) -> None:
    made, file, epochs, agents = trained(tmp_path, Model([]))
    assert (made.why, made.current, len(epochs)) == ("the model made no edit", 0, 1)
    assert file.version().solved == 1
    assert agents == {"tester", OPTIMIZER}


def test_edits_that_cannot_be_made_are_told_and_count_nothing() -> None:
    bench = Bench((area(),), frozenset({"calculator"}), most=2)
    for action, arguments, why in (
        ("add_function", {"name": "area"}, "use revise_function"),
        ("add_function", {"name": "calculator"}, "there is a tool 'calculator' already"),
        ("revise_function", {"name": "volume"}, "there is no function 'volume'; there are: area"),
        ("remove_function", {"name": "volume"}, "there is no function 'volume'"),
        ("revise_function", {"name": "area", "code": "def area(base"}, "its code is no Python"),
        ("revise_function", {"name": "area", "code": "def other(): pass"}, "defines no function 'area'"),
        ("revise_function", {"name": "area", "code": "def area(base): pass"}, "takes no argument 'height'"),
    ):
        with pytest.raises(ToolFailed, match=why):
            bench.edit(action, arguments)
    assert bench.edits == []
    assert bench.edit("revise_function", {"name": "area", "code": WRONG}) == "done; 1 edits left"
    bench.edit("remove_function", {"name": "area"})
    with pytest.raises(ToolFailed, match="2 edits have been made"):
        bench.edit("add_function", {"name": "volume"})
    assert bench.functions == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "Area"}, "small letters"),
        ({"name": "class"}, "no word of Python's"),
        ({"description": " "}, "no description"),
        ({"code": RIGHT + "#" * 4000}, "at most 4000"),
        ({"parameters": {"type": "array"}}, "type object"),
        (
            {"parameters": {"type": "object", "properties": {"a b": {}}}, "code": "def area(**k): pass"},
            "names of",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(change: dict[str, Any], why: str) -> None:
    whole = {"name": "area", "description": "x", "parameters": SIDES, "code": RIGHT}
    assert fault(area()) == ""
    assert why in fault(LearnedFunction(**{**whole, **change}))


@pytest.mark.parametrize("sandbox", ["monty", "bubblewrap"])
def test_functions_run_in_the_sandbox_and_their_failure_is_the_tool_s(
    tmp_path: pathlib.Path, sandbox: str
) -> None:
    file = tmp_path / "own.functions.json"
    kept = FunctionFile().put(FunctionVersion(version=1, functions=(area(),)), current=True)
    write_functions(file, kept.put(FunctionVersion(version=2, functions=(area(BROKEN),))))
    (good,) = function_tools(str(file), Choice(name=sandbox))
    (bad,) = function_tools(f"{file}@2", Choice(name=sandbox))
    assert good.parameters["additionalProperties"] is False
    assert good.effects == "none"
    made = run(good.call({"base": 6, "height": 3}, context()))
    text = made if isinstance(made, str) else made.data.decode()
    assert text.strip() == "9.0"
    with pytest.raises(ToolFailed, match="ZeroDivisionError"):
        run(bad.call({"base": 6, "height": 3}, context()))


def test_an_agent_file_names_its_functions_from_its_folder(tmp_path: pathlib.Path) -> None:
    write_functions(
        tmp_path / "own.functions.json",
        FunctionFile().put(FunctionVersion(version=1, functions=(area(),)), current=True),
    )
    agent = tmp_path / "agent.json"
    agent.write_text(
        json.dumps(
            {
                "name": "geometer",
                "tools": ["./own.functions.json"],
                "planner": {"max_plan": 0},
                "sandbox": "monty",
            }
        ),
        "utf-8",
    )
    found = load_agent(agent)
    assert found.tools == (str(tmp_path.resolve() / "own.functions.json"),)

    async def scenario() -> None:
        async with harness(tmp_path, [Model()], repeat=True) as h:
            state = await h.work(found, CASES[0].request)
            assert state.answer.startswith("It is 9.0")

    run(scenario())


def test_a_file_that_is_none_is_told(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "own.functions.json"
    with pytest.raises(InvalidRequest, match="cannot be used: No such file") as refused:
        read_functions(file)
    assert refused.value.hint == "pentad train-tools AGENT CASES makes one"
    for text in ("{", '{"format": "other"}', '{"current": 4}'):
        file.write_text(text, "utf-8")
        with pytest.raises(InvalidRequest, match="cannot be used"):
            read_functions(file)
    write_functions(file, FunctionFile())
    with pytest.raises(InvalidRequest, match="there is no version 7"):
        function_tools(f"{file}@7", MONTY)
    assert names_file("./own.functions.json@3")
    assert not names_file("calculator")


def test_cases_are_read_and_judged_by_number_or_words(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text('{"input": "What is 2 and 2?", "output": "4"}\n', "utf-8")
    assert solvable_cases(str(file)) == (SolvableCase(request="What is 2 and 2?", answer="4"),)
    file.write_text('{"input": "What is 2 and 2?", "output": 4}\n', "utf-8")
    with pytest.raises(InvalidRequest, match="line 1 has no texts"):
        solvable_cases(str(file))
    assert solves("That makes 1,024.", "1024")
    assert solves("It is 9.0.", "9")
    assert solves("0.3333333", "0.33333333")
    assert not solves("It is 90.", "9")
    assert not solves("I do not know.", "9")
    assert solves("It is a  Triangle.", "triangle")
    assert not solves("It is a circle.", "triangle")


def test_without_cases_nothing_is_trained(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, []) as h:
            with pytest.raises(InvalidRequest, match="there are no cases"):
                ToolTrainer(h.runtime, spec(), (), tmp_path / "own.functions.json")

    run(scenario())
