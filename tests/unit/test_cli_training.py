"""The verbs that train an agent's tools: what they refuse, before anything is loaded, and how they say it."""

from __future__ import annotations

import pathlib

import pytest

from cli_support import Pentad

AGENT = "name: clerk\ntools: [calculator]\nplanner: {max_plan: 0}\n"
CASE = '{"input": "What is 2 and 2?", "output": "4"}\n'


@pytest.fixture
def clerk(tmp_path: pathlib.Path) -> str:
    (tmp_path / "clerk.yaml").write_text(AGENT, "utf-8")
    (tmp_path / "cases.jsonl").write_text(CASE, "utf-8")
    return "clerk.yaml"


def test_training_functions_wants_cases_and_a_name_for_the_file(pentad_: Pentad, clerk: str) -> None:
    missing = pentad_("train-tools", clerk, "absent.jsonl")
    assert missing.status != 0
    assert "cases 'absent.jsonl': No such file" in missing.err
    assert '{"input": "What is 23 times 19?", "output": "437"}' in missing.err
    named = pentad_("train-tools", clerk, "cases.jsonl", "--functions", "own.json")
    assert named.status != 0
    assert "'own.json' is no name of a function file" in named.err
    assert "end it in .functions.json" in named.err


@pytest.mark.parametrize("flag", ["--epochs", "--patience", "--edits"])
def test_numbers_of_the_training_are_in_range(pentad_: Pentad, clerk: str, flag: str) -> None:
    refused = pentad_("train-tools", clerk, "cases.jsonl", flag, "0")
    assert refused.status != 0
    assert flag in refused.err


def test_training_a_retriever_wants_solved_calls(pentad_: Pentad, clerk: str) -> None:
    wrong = pentad_("train-retriever", clerk, "cases.jsonl", "--out", "head.npz")
    assert wrong.status != 0
    assert "line 1 has no text 'input' and list 'calls'" in wrong.err
    assert not pathlib.Path("head.npz").exists()
