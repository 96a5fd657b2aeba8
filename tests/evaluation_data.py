"""Small data files for the suites, written for the tests, and evaluations without a model."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from pentad.agent.evaluation.base import CaseSource
from pentad.agent.evaluation.results import CaseResult, ResultFile
from pentad.agent.evaluation.summary import Summary
from pentad.application.config import Settings
from pentad.application.evaluation import Order, evaluate

_WEATHER = {
    "name": "weather.get",
    "description": "The weather of a city on a day.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "How many days ahead."},
            "limits": {"type": "tuple", "items": {"type": "float"}, "description": "Lowest and highest."},
            "unit": {"type": "string", "enum": ["C", "F"], "description": "Of temperatures."},
        },
        "required": ["city", "days"],
    },
}
_SUM = {
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "dict",
        "properties": {"a": {"type": "float"}, "b": {"type": "float"}},
        "required": ["a", "b"],
    },
}
_CITIES = ("Rome", "Oslo", "Lima", "Cairo")


def _bfcl(kind: str, functions: Sequence[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    asked, told = [], []
    for i, city in enumerate(_CITIES):
        text = f"What will the weather in {city} be in {i + 1} days, between 1.5 and 20 degrees?"
        asked.append({"id": f"{kind}_{i}", "question": [[{"role": "user", "content": text}]]})
        asked[-1]["function"] = list(functions)
        answer = {"city": [city], "days": [i + 1], "limits": [[1.5, 20.0]], "unit": ["C", ""]}
        told.append({"id": f"{kind}_{i}", "ground_truth": [{"weather.get": answer}]})
    return asked, told


def _nest(i: int) -> dict[str, Any]:
    """A line in the form of the released set, whose fields hold JSON as text."""
    numbers = {name: {"description": "A number.", "type": "int or float"} for name in ("arg_0", "arg_1")}
    names = ("add", "multiply", "divide", "subtract")
    tools = [{"name": name, "description": f"{name} two.", "parameters": numbers} for name in names]
    calls = [
        {"name": "multiply", "label": "$var_1", "arguments": {"arg_0": i + 2, "arg_1": 10}},
        {"name": "subtract", "label": "$var_2", "arguments": {"arg_0": "$var_1.result$", "arg_1": 3}},
        {
            "name": "divide",
            "label": "$var_3",
            "arguments": {"arg_0": "$var_2.result$", "arg_1": "$var_1.result$"},
        },
    ]
    gold = ((i + 2) * 10 - 3) / ((i + 2) * 10)
    return {
        "sample_id": f"nest_{i}", "input": f"What share of {i + 2} boxes of ten is left, less three?",
        "output": json.dumps(calls), "tools": json.dumps(tools), "gold_answer": gold,
    }  # fmt: skip


def _program(i: int) -> dict[str, Any]:
    tests = [{"input": f"{n}\n", "output": f"{n * i}\n"} for n in (1, 5)]
    solution = f"print(int(input()) * {i})"
    return {"description": f"Print {i} times the number.", "official_tests": tests, "solution": solution}


def write_data(folder: pathlib.Path) -> pathlib.Path:
    """A folder with a small file of each name that a suite reads."""
    folder.mkdir(exist_ok=True)
    simple, multiple = _bfcl("simple_python", [_WEATHER]), _bfcl("multiple", [_SUM, _WEATHER])
    sums = [
        {"question": f"Ann has {i} pears and buys {i}. How many?", "answer": f"{i}+{i}\n#### {2 * i}"}
        for i in range(3, 8)
    ]
    four = [{"id": f"p{i}", "time_limit": 1, **_program(i)} for i in range(1, 5)]
    files = {
        "nestful_data.jsonl": [_nest(i) for i in range(4)],
        "mmlu-pro.jsonl": [
            {"question": f"{i}+1 is?", "options": [str(n) for n in range(10)], "answer_index": i + 1}
            for i in range(4)
        ],
        "gpqa-diamond.jsonl": [
            {
                "Question": f"{i}?",
                "Correct Answer": "yes",
                **{f"Incorrect Answer {n}": f"{n}" for n in (1, 2, 3)},
            }
            for i in range(4)
        ],
        "math-500.jsonl": [
            {"problem": "Simplify.", "answer": a} for a in (r"\frac{1}{2}", "x+1", "(1,2)", r"2\sqrt{3}")
        ],
        "aime-2024.jsonl": [{"problem": f"{n}?", "answer": n} for n in (7, 204, 25, 809)],
        "codeforces.jsonl": four,
        "bfcl-v4-simple_python.jsonl": simple[0],
        "bfcl-v4-simple_python-answers.jsonl": simple[1],
        "bfcl-v4-multiple.jsonl": multiple[0],
        "bfcl-v4-multiple-answers.jsonl": multiple[1],
        "gsm8k-dev.jsonl": sums,
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def evaluated(
    folder: pathlib.Path,
    suite: str,
    *models: str,
    limit: int | None = 4,
    seed: int = 0,
    out: pathlib.Path | None = None,
    seen: list[CaseResult] | None = None,
) -> list[Summary]:
    """What scripted policies make of a suite; `seen` receives the result of each case that is run."""
    source = CaseSource(data=write_data(folder / "data"), seed=seed, limit=limit)
    settings = Settings(data_home=folder / "home")

    def tell(_who: object, _done: int, _total: int, result: CaseResult | None) -> None:
        if result is not None and seen is not None:
            seen.append(result)

    order = Order(suite=suite, models=models, source=source)
    return asyncio.run(evaluate(order, lambda _: settings, ResultFile(out), tell))
