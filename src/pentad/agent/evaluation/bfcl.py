"""What the suites of the Berkeley Function Calling Leaderboard share: reading, offering, judging."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act
from pentad.agent.evaluation.base import ONE_CALL, Case, CaseSource, Setting
from pentad.agent.evaluation.call_match import mismatch
from pentad.agent.evaluation.data import field_of, lines_of
from pentad.agent.state import RunState
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json

_KINDS = {"dict": "object", "float": "number", "tuple": "array"}
_SCHEMA = {"string", "integer", "number", "boolean", "array", "object", "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bfcl:
    """Base of the suites that ask for one call: a subclass names its files.

    The first answer with calls counts: exactly one, of the right function, with possible arguments.
    """

    extra: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]]
    """The cases, and their possible answers."""
    setting: ClassVar[Setting] = Setting(
        instructions="Call the function that serves the request, with arguments from the request.",
        planner=ONE_CALL,
        own_steps=1,
    )

    @property
    def name(self) -> str:
        """The suite's name; a subclass gives it."""
        raise NotImplementedError

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The cases in the order of the file."""
        asked, told = self.files
        answers = {
            item["id"]: field_of(item, "ground_truth", list, told)
            for item in lines_of(source, self.name, told)
        }
        made = []
        for item in islice(lines_of(source, self.name, asked), source.limit):
            ident = field_of(item, "id", str, asked)
            if ident not in answers:
                raise InvalidRequest(
                    f"{told!r} has no answer to {ident!r} of {asked!r}",
                    hint="give both files of one version",
                    param="data",
                )
            made.append(self._case(item, answers[ident][0]))
        return made

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 for a possible call, else 0 with the reason."""
        calls = next((e.calls for e in state.exchanges if e.calls), ())
        if len(calls) != 1:
            return Score(value=0.0, about=f"{len(calls)} calls, one is right")
        function, answers = case.gold
        if calls[0].name != as_name(function["name"]):
            return Score(value=0.0, about=f"called {calls[0].name!r}, right is {as_name(function['name'])!r}")
        try:
            arguments = parse_json(calls[0].arguments or "{}")
        except ValueError:
            return Score(value=0.0, about="the arguments are no JSON")
        if not isinstance(arguments, dict):
            return Score(value=0.0, about="the arguments are no JSON object")
        wrong = mismatch(function, arguments, answers)
        return Score(value=float(wrong is None), about=wrong or "a possible call")

    def _case(self, item: dict[str, Any], answer: Mapping[str, Any]) -> Case:
        functions = field_of(item, "function", list, self.files[0])
        ((name, answers),) = answer.items()
        right = next(function for function in functions if function["name"] == name)
        offered = [
            {
                "name": as_name(function["name"]),
                "description": function.get("description", ""),
                "parameters": as_schema(function["parameters"]),
            }
            for function in functions
        ]
        required = right["parameters"].get("required", ())
        needed = {key: v for key, v in answers.items() if "" not in v or key in required}
        arguments = {key: _first(values) for key, values in needed.items()}
        goal = "\n".join(message["content"] for message in item["question"][0])
        return Case(
            id=item["id"],
            goal=goal,
            environment=Choice(name="offered", options={"functions": offered}),
            gold=(right, answers),
            solution=((Act(tool=as_name(name), arguments=arguments),), "Done."),
        )


def as_name(name: str) -> str:
    """The name as models may write it: the data set's dots are none of a function's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def as_schema(described: Any) -> Any:
    """JSON Schema for a description in the data set's own words; what that does not know is left open."""
    if not isinstance(described, dict):
        return described
    made = {k: v for k, v in described.items() if k in ("description", "enum", "required", "default")}
    kind = _KINDS.get(described.get("type", ""), described.get("type"))
    if kind in _SCHEMA:
        made["type"] = kind
    if "properties" in described:
        made["properties"] = {k: as_schema(v) for k, v in described["properties"].items()}
    if "items" in described:
        made["items"] = as_schema(described["items"])
    if kind == "object" and "properties" in made and "required" not in made:
        made["required"] = []
    return made


def _first(values: Sequence[Any]) -> Any:
    """A right value in full: within an object, each field has its own list of right ones."""
    value = next(one for one in values if one != "")
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(next(one for one in v if one != "")) for k, v in value.items() if "" not in v}
    return [_plain(item) for item in value] if isinstance(value, list) else value
