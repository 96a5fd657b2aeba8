"""Hundreds of APIs with real requests: the functions of two BFCL sets in one pool, parted by function."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pentad.agent.evaluation.base import Case, CaseSource
from pentad.agent.evaluation.bfcl import as_name
from pentad.agent.evaluation.suites.bfcl_multiple import BfclMultiple
from pentad.agent.evaluation.suites.bfcl_simple import BfclSimple
from pentad.choice import Choice

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = (ROOT / "shared" / "data", ROOT.parent / "shared" / "data", ROOT.parents[1] / "shared" / "data")


@dataclass(frozen=True)
class ApiSet:
    """All functions, and the requests of three kinds of functions: learned, for choices, and held out.

    No request stands twice, and no function is of two kinds: what is held out is new in both.
    """

    functions: dict[str, dict[str, Any]]
    """By name, as the model is offered them."""
    learned: tuple[Case, ...]
    choices: tuple[Case, ...]
    """What was looked at while this was written."""
    held_out: tuple[Case, ...]

    def offering(self, cases: Sequence[Case], count: int, seed: int) -> Choice:
        """The functions of the cases and others at random, `count` in all, in random order."""
        chance = random.Random(seed)
        wanted = list(dict.fromkeys(called(case) for case in cases))
        others = sorted(set(self.functions) - set(wanted))
        names = [*wanted, *chance.sample(others, count - len(wanted))]
        chance.shuffle(names)
        return Choice(name="offered", options={"functions": [self.functions[name] for name in names]})


def called(case: Case) -> str:
    """The function that serves a case, by the name that the model calls it."""
    return as_name(case.gold[0]["name"])


def api_set(seed: int = 13) -> ApiSet:
    """The set, parted by the seed. Skips the test where the data is not there."""
    folder = next((f for f in FOLDERS if (f / BfclSimple.files[0]).exists()), None)
    if folder is None:
        pytest.skip("there are no BFCL files in shared/data")
    functions: dict[str, dict[str, Any]] = {}
    sound: list[Case] = []
    asked: set[str] = set()
    for suite in (BfclMultiple(), BfclSimple()):
        for case in suite.cases(CaseSource(data=folder)):
            assert case.environment is not None
            for function in case.environment.options["functions"]:
                functions.setdefault(function["name"], function)
            told = next(f for f in case.environment.options["functions"] if f["name"] == called(case))
            request = " ".join(case.goal.split()).casefold()
            # Two functions of one name are one here; a case of the other one would be judged by the wrong.
            if request not in asked and _form(told) == _form(functions[told["name"]]):
                asked.add(request)
                sound.append(case)
    names = sorted({called(case) for case in sound})
    random.Random(seed).shuffle(names)
    third = len(names) // 3
    held, tried = set(names[:third]), set(names[third : third + 60])
    parts = ([], [], [])  # type: tuple[list[Case], list[Case], list[Case]]
    for case in sound:
        parts[2 if called(case) in held else 1 if called(case) in tried else 0].append(case)
    return ApiSet(functions, *(tuple(part) for part in parts))


def write_solved(path: pathlib.Path, cases: Sequence[Case]) -> pathlib.Path:
    """The cases as a file of solved calls."""
    with path.open("w", encoding="utf-8") as out:
        for case in cases:
            act = case.solution[0][0]
            assert not isinstance(act, str)
            call = {"name": act.tool, "arguments": dict(act.arguments)}
            out.write(json.dumps({"input": case.goal, "calls": [call]}) + "\n")
    return path


def _form(function: dict[str, Any]) -> Any:
    parameters = function["parameters"]
    kinds = {name: value.get("type") for name, value in parameters["properties"].items()}
    return kinds, sorted(parameters.get("required", ()))
