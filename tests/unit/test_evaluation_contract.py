"""Suites: what every registered one keeps to."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence

import pytest

from evaluation_data import evaluated, write_data
from pentad import registry
from pentad.agent.evaluation.base import Case, CaseSource, Suite
from pentad.agent.evaluation.policies import ScriptedPolicy
from pentad.agent.evaluation.results import CaseResult, Contender, ResultFile
from pentad.agent.evaluation.runner import Evaluation
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.resource.energy import PackageEnergy

pytestmark = pytest.mark.thorough

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "eval.md"


def suite_of(name: str) -> Suite:
    made: Suite = build("suite", Choice(name=name))
    return made


def cases_of(name: str, folder: pathlib.Path, seed: int = 0, limit: int | None = 4) -> Sequence[Case]:
    source = CaseSource(data=write_data(folder / "data"), seed=seed, limit=limit)
    return suite_of(name).cases(source)


@pytest.mark.parametrize("name", registry.known("suite"))
class TestEverySuite:
    def test_the_oracle_solves_all_and_doing_nothing_solves_none(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        seen: list[CaseResult] = []
        oracle, idle = evaluated(tmp_path, name, "oracle", "idle", seen=seen)
        assert (oracle.successes, idle.successes) == (oracle.cases, 0), [r.about for r in seen]
        ends = {"answered"} if suite_of(name).setting.own_steps is None else {"answered", "out_of_steps"}
        assert {result.status for result in seen} <= ends

    def test_a_solution_that_stops_short_is_no_success(self, name: str, tmp_path: pathlib.Path) -> None:
        cases = cases_of(name, tmp_path)
        cut = [dataclasses.replace(case, solution=(*case.solution[:-2], "Enough.")) for case in cases]

        async def scenario() -> list[CaseResult]:
            policy = ScriptedPolicy("oracle")
            runtime = AgentRuntime(policy.models, Journal(tmp_path / "journal.db"))
            who = Contender(model="oracle", planner=str(suite_of(name).setting.planner), coordinator="single")
            work = Evaluation(suite=suite_of(name), cases=cut, seed=0, contender=who, chosen=name)
            try:
                return await work.run(
                    runtime, ResultFile(None), PackageEnergy(), begun=policy.begin, done=lambda _: None
                )
            finally:
                await runtime.close()

        results = asyncio.run(scenario())
        assert len(results) == len(cut)
        assert not any(result.success for result in results)

    def test_the_same_seed_makes_the_same_cases(self, name: str, tmp_path: pathlib.Path) -> None:
        cases = cases_of(name, tmp_path)
        assert cases == cases_of(name, tmp_path)
        assert len({case.id for case in cases}) == len(cases) == 4
        assert cases[:2] == cases_of(name, tmp_path, limit=2)
        if not suite_of(name).files:
            other = cases_of(name, tmp_path, seed=1)
            assert {case.goal for case in other} != {case.goal for case in cases}
            assert not {case.id for case in other} & {case.id for case in cases}

    def test_a_case_whose_line_is_kept_is_not_run_again(self, name: str, tmp_path: pathlib.Path) -> None:
        out, first, again = tmp_path / "out.jsonl", list[CaseResult](), list[CaseResult]()
        evaluated(tmp_path, name, "oracle", limit=2, out=out, seen=first)
        with out.open("a") as stream:
            stream.write('{"suite": "cut by a ki')
        (line,) = evaluated(tmp_path, name, "oracle", limit=4, out=out, seen=again)
        assert [len(first), len(again), line.cases, line.successes] == [2, 2, 4, 4]
        kept = [json.loads(text) for text in out.read_text("utf-8").splitlines()]
        assert [entry["case"] for entry in kept] == [case.id for case in cases_of(name, tmp_path)]

    def test_a_line_has_the_keys_that_the_page_names(self, name: str, tmp_path: pathlib.Path) -> None:
        out = tmp_path / "out.jsonl"
        evaluated(tmp_path, name, "oracle", limit=1, out=out)
        line = json.loads(out.read_text("utf-8"))
        section = PAGE.read_text("utf-8").partition("## One line per case")[2]
        told = re.findall(r"^\| `(\w+)` \|", section, re.M)
        assert list(line) == told

    def test_data_that_are_not_there_are_refused_with_the_flag(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        suite = suite_of(name)
        if not suite.files:
            assert suite.cases(CaseSource(limit=1))
            return
        with pytest.raises(InvalidRequest, match="--data"):
            suite.cases(CaseSource(limit=1))
        with pytest.raises(InvalidRequest, match=re.escape(str(tmp_path))):
            suite.cases(CaseSource(data=tmp_path, limit=1))


class Meter:
    """A meter that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def joules(self) -> float:
        self.reads += 1
        return float(self.reads)


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_cases_are_under_way_and_results_stand_in_order(at_once: int, tmp_path: pathlib.Path) -> None:
    cases = cases_of("household", tmp_path, limit=6)
    under_way, most = 0, 0

    def begun(_case: Case) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)

    def done(_result: CaseResult) -> None:
        nonlocal under_way
        under_way -= 1

    async def scenario() -> list[CaseResult]:
        runtime = AgentRuntime(ScriptedPolicy("idle").models, Journal(tmp_path / "journal.db"))
        who = Contender(
            model="idle", planner=str(suite_of("household").setting.planner), coordinator="single"
        )
        work = Evaluation(
            suite=suite_of("household"),
            cases=cases,
            seed=0,
            contender=who,
            chosen="household",
            at_once=at_once,
        )
        try:
            return await work.run(runtime, ResultFile(None), Meter(), begun=begun, done=done)
        finally:
            await runtime.close()

    results = asyncio.run(scenario())
    assert most == at_once
    assert [result.case for result in results] == [case.id for case in cases]
    assert {result.joules for result in results} == ({1.0} if at_once == 1 else {None})
