"""Evaluation: intervals, judges, the kept lines and the command."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import pytest
import yaml

from cli_support import Pentad, pentad_
from evaluation_data import evaluated, write_data
from pentad.agent.evaluation.base import CaseSource
from pentad.agent.evaluation.call_match import mismatch
from pentad.agent.evaluation.results import CaseResult, ResultFile
from pentad.agent.evaluation.suites.gsm8k import number_in
from pentad.agent.evaluation.summary import summarize
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.model.intervals import bootstrap, wilson
from pentad.resource.energy import PackageEnergy

pytestmark = pytest.mark.thorough

__all__ = ["pentad_"]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 5, 0.0, 0.4345),
        (5, 5, 0.5655, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0, 1),
    ],
)
def test_wilson_gives_the_published_bounds(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_bootstrap_holds_the_mean_in_nineteen_of_twenty_draws() -> None:
    chance, held = random.Random(1), 0
    for seed in range(200):
        low, high = bootstrap([chance.random() for _ in range(40)], seed=seed)
        held += low <= 0.5 <= high
    assert 180 <= held <= 199
    assert bootstrap([0.25] * 7) == (0.25, 0.25)
    assert bootstrap([0.0, 1.0, 0.5], seed=3) == bootstrap([0.0, 1.0, 0.5], seed=3)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("48/2 = 24, so\n#### 72", "72"),
        ("#### $1,234.50", "1234.50"),
        ("It is \\boxed{18}, after 3 steps.", "18"),
        ("She pays 5 and gets -3.", "-3"),
        ("The total is 72.", "72"),
        ("many", None),
    ],
)
def test_the_number_of_an_answer_is_found(answer: str, number: str | None) -> None:
    assert (None if (found := number_in(answer)) is None else str(found)) == number


FUNCTION = {
    "name": "f",
    "parameters": {
        "type": "dict",
        "properties": {
            "n": {"type": "integer"}, "x": {"type": "float"}, "s": {"type": "string"},
            "l": {"type": "array", "items": {"type": "string"}}, "d": {"type": "dict"},
            "o": {"type": "array", "items": {"type": "dict"}}, "v": {"type": "array"},
        },
        "required": ["n"],
    },
}  # fmt: skip
ANSWERS: dict[str, list[Any]] = {
    "n": [3], "x": [2.0, ""], "s": ["New York, NY", ""], "l": [["a b", "C"], ""],
    "d": [{"k": [1, 2], "opt": ["", "z"]}, ""], "o": [[{"k": ["U.S."]}], ""], "v": ["grades", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"n": 3}, True),
        ({}, False),
        ({"n": 4}, False),
        ({"n": 3.0}, False),
        ({"n": "3"}, False),
        ({"n": 3, "x": 2}, True),
        ({"n": 3, "s": "new york NY"}, True),
        ({"n": 3, "s": "York"}, False),
        ({"n": 3, "l": ["A-b", "c"]}, True),
        ({"n": 3, "l": ["c", "A-b"]}, False),
        ({"n": 3, "l": [1]}, False),
        ({"n": 3, "d": {"k": 2}}, True),
        ({"n": 3, "d": {"k": 3}}, False),
        ({"n": 3, "d": {"opt": "z"}}, False),
        ({"n": 3, "d": {"k": 1, "more": 1}}, False),
        ({"n": 3, "o": [{"k": "us"}]}, True),
        ({"n": 3, "o": []}, False),
        ({"n": 3, "v": "grades"}, True),
        ({"n": 3, "v": ["grades"]}, False),
        ({"n": 3, "other": 1}, False),
    ],
)
def test_a_call_is_matched_by_the_published_rule(arguments: dict[str, Any], right: bool) -> None:
    assert (mismatch(FUNCTION, arguments, ANSWERS) is None) == right


def result(case: str, *, success: bool, score: float, joules: float | None = 2.0) -> CaseResult:
    return CaseResult(
        suite="s", case=case, seed=0, model="m", planner="p", coordinator="c", success=success, score=score,
        about="", status="answered", steps=1, model_calls=1, tool_calls=0, tokens=100, prompt_tokens=80,
        cached_tokens=0, completion_tokens=20, seconds=0.5, joules=joules, run="run_1",
    )  # fmt: skip


def test_amounts_are_those_of_all_cases_per_success() -> None:
    results = [result("a", success=True, score=1.0), result("b", success=False, score=0.5)]
    line = summarize([*results, result("c", success=False, score=0.0)])
    assert (line.cases, line.successes, line.mean_score) == (3, 1, 0.5)
    assert (line.tokens_per_success, line.seconds_per_success, line.joules_per_success) == (300, 1.5, 6.0)
    assert summarize(results[1:]).tokens_per_success is None
    unmetered = [results[0], result("d", success=True, score=1.0, joules=None)]
    assert summarize(unmetered).joules_per_success is None


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "notes.jsonl"
    out.write_text('{"hello": 1}\n', encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"notes.jsonl:1 is no result.*--out"):
        ResultFile(out)
    assert out.read_text("utf-8") == '{"hello": 1}\n'


def test_energy_is_the_sum_of_the_packages_over_their_wrapping_round(tmp_path: pathlib.Path) -> None:
    assert PackageEnergy(tmp_path).joules() is None
    for name, used in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 1_000_000), ("intel-rapl:0:0", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("6000000\n")
    meter = PackageEnergy(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("5500000\n")
    assert meter.joules() == pytest.approx(0.5)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1200000\n")
    assert meter.joules() == pytest.approx(0.5 + 0.6 + 0.2)


def test_a_repeated_evaluation_scores_identically(tmp_path: pathlib.Path) -> None:
    first, again = (list[CaseResult](), list[CaseResult]())
    for folder, seen in (("a", first), ("b", again)):
        (tmp_path / folder).mkdir()
        evaluated(tmp_path / folder, "household", "oracle", seed=5, seen=seen)
    told = [[(r.case, r.score, r.about, r.tokens, r.tool_calls) for r in seen] for seen in (first, again)]
    assert told[0] == told[1]


class TestCommand:
    def test_it_prints_a_line_for_each_contender_and_keeps_one_for_each_case(
        self, pentad_: Pentad, tmp_path: pathlib.Path
    ) -> None:
        words = ("eval", "household:places=6", "--model", "oracle", "--model", "idle", "--limit", "3")
        done = pentad_(*words, "--out", "out.jsonl", "--json")
        assert done.status == 0, done.err
        lines = json.loads(done.out)
        assert [(line["model"], line["successes"], line["cases"]) for line in lines] == [
            ("oracle", 3, 3),
            ("idle", 0, 3),
        ]
        assert lines[0]["suite"] == "household:places=6"
        kept = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
        assert len(kept) == 6
        assert "3/3 household_2: success" in done.err
        again = pentad_(*words, "--out", "out.jsonl", "--json")
        assert json.loads(again.out) == lines, "nothing is run again"
        assert (tmp_path / "out.jsonl").read_text("utf-8").splitlines() == kept

    def test_its_runs_are_in_the_journal(self, pentad_: Pentad, tmp_path: pathlib.Path) -> None:
        pentad_("eval", "household", "--model", "oracle", "--limit", "1", "--out", "out.jsonl")
        run = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))["run"]
        shown = pentad_("runs", "show", run, "--json")
        assert json.loads(shown.out)["status"] == "answered"

    def test_suites_are_listed_with_what_they_need(self, pentad_: Pentad) -> None:
        listed = {each["name"]: each for each in json.loads(pentad_("eval", "--list", "--json").out)}
        assert listed["gsm8k"]["files"] == ["gsm8k-dev.jsonl"]
        assert listed["household"]["files"] == []
        assert "household" in pentad_("eval", "--list").out

    def test_the_table_says_that_there_is_no_meter(
        self, pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PackageEnergy, "joules", lambda _: None)
        done = pentad_("eval", "household", "--model", "oracle", "--limit", "1")
        assert "joules are absent" in done.err
        assert "100.0%" in done.out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--model", "oracle"], "no suite is named"),
            (["household"], "no model is named"),
            (["housold", "--model", "oracle"], "did you mean 'household'"),
            (["household", "--model", "no-such-model"], "no-such-model"),
            (["household", "--model", "oracle", "--planner", "graph"], "is a scripted policy"),
            (["household", "--model", "m", "--planner", "no-planner"], "unknown planner"),
            (["household:places=x", "--model", "oracle"], "option 'places'"),
            (["gsm8k", "--model", "oracle"], "--data"),
            (["household", "--model", "oracle", "--limit", "0"], "--limit"),
        ],
    )
    def test_bad_words_are_refused_in_one_line_with_a_remedy(
        self, pentad_: Pentad, words: list[str], said: str
    ) -> None:
        done = pentad_("eval", *words)
        assert done.status == 2, done.err
        assert said in done.err
        assert "Traceback" not in done.err

    def test_data_are_read_from_the_folder_that_is_named(
        self, pentad_: Pentad, tmp_path: pathlib.Path
    ) -> None:
        write_data(tmp_path / "given")
        done = pentad_("eval", "bfcl-multiple", "--model", "oracle", "--data", "given", "--json")
        assert [line["successes"] for line in json.loads(done.out)] == [4]

    def test_the_figures_are_a_planner_block_that_an_agent_file_takes(
        self, pentad_: Pentad, smollm2_path: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        write_data(tmp_path / "given")
        words = ["eval", "gsm8k", "--data", "given", "--model", str(smollm2_path), "--limit", "2"]
        words += ["--embedding-model", "null", "--at-once", "4", "--out", "out.jsonl"]
        planners = ["--planner", "cot:think_tokens=0", "--planner", "cot:think_tokens=16"]
        done = pentad_(*words, *planners, "--skip", "1", "--figures", "figures.yaml")
        assert done.status == 0, done.err
        kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        cases = build("suite", Choice(name="gsm8k")).cases(CaseSource(data=tmp_path / "given", limit=3))
        assert {line["case"] for line in kept} == {case.id for case in cases[1:]}
        block = yaml.safe_load((tmp_path / "figures.yaml").read_text("utf-8"))["planner"]
        planner = build("planner", Choice(name=block["name"], options=block["options"]))
        assert set(planner.among) == {"cot:think_tokens=0", "cot:think_tokens=16"}
        for name, levels in planner.measured.items():
            spent = [line["tokens"] for line in kept if line["planner"] == name]
            assert all(min(spent) <= tokens <= max(spent) for _, tokens in levels.values())

    def test_a_model_in_a_file_answers_several_cases_at_once(
        self, pentad_: Pentad, smollm2_path: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        words = (
            "--limit",
            "6",
            "--at-once",
            "4",
            "--embedding-model",
            "null",
            "--out",
            "out.jsonl",
            "--json",
        )
        write_data(tmp_path / "given")
        done = pentad_("eval", "bfcl-simple", "--data", "given", "--model", str(smollm2_path), *words)
        assert done.status == 0, done.err
        assert [line["cases"] for line in json.loads(done.out)] == [4]
        kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        assert not [line for line in kept if "no model" in (line["error"] or "")]
        assert {line["joules"] for line in kept} == {None}
        assert all(line["completion_tokens"] for line in kept)
