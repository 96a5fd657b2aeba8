"""Policies on a mixed workload: the same arrivals for each, judged by what the classes are promised."""

from __future__ import annotations

import asyncio
import json
import pathlib
from dataclasses import replace

import pytest

from agent_support import run
from cli_support import Pentad
from elastic_bench import WORKLOAD, scripted_contestants, workload_at
from pentad.agent.evaluation.answer_check import AnswerCheck
from pentad.agent.evaluation.workload_file import read_workload, schema_json
from pentad.application.bench.elastic.arrivals import arrivals_of, rounds_of
from pentad.application.bench.elastic.play import Bench, Plan
from pentad.application.bench.elastic.policy import policies_of
from pentad.application.bench.elastic.run_line import RunLine, append_lines, read_lines
from pentad.application.bench.elastic.score import ratio, score
from pentad.application.objective_check import judged_of
from pentad.errors import InvalidRequest, UnknownName

POLICIES = "fixed:small/cot:think_tokens=64,fixed:large/cot:think_tokens=0,elastic"


def played(path: pathlib.Path, policies: str, plan: Plan) -> Bench:
    """A benchmark on the scripted models, to its end."""
    bench = Bench(workload=workload_at(path), plan=plan)

    async def scenario() -> None:
        async with scripted_contestants(path, policies_of(policies)) as contestants:
            await bench.play(contestants)

    run(scenario())
    return bench


@pytest.mark.row("fw-five-layer", "mechanism")
@pytest.mark.row("het-app-slo", "mechanism")
@pytest.mark.row("fut-flex-reasoning", "mechanism")
def test_policies_meet_the_same_arrivals_and_are_judged_by_what_is_promised(tmp_path: pathlib.Path) -> None:
    plan = Plan(loads=(0.5,), minutes=0.01, rounds=2, capacity_per_minute=2400, seed=4)
    result = played(tmp_path, POLICIES, plan).result()
    (at,) = result["loads"]
    small, large, joint = at["policies"].values()
    assert small["runs"] == large["runs"] == joint["runs"] == small["arrived"] > 4
    assert large["right"] == large["runs"] > small["right"] > 0
    assert large["good"] <= large["right"]
    # The tenth sum alone is right, so the floor of 0.4 may hold; calls are never.
    assert small["classes"]["calls"]["quality"] == 0.0
    # Nothing but the floor of `sums` leads to the large model where it costs twice as much.
    assert joint["classes"]["sums"]["quality"] == 1.0
    assert set(at["over"]) == {"fixed:small/cot:think_tokens=64", "fixed:large/cot:think_tokens=0"}
    assert at["over"]["fixed:small/cot:think_tokens=64"]["ratio"] > 1


def test_an_interrupted_benchmark_keeps_what_has_ended(tmp_path: pathlib.Path) -> None:
    bench = Bench(workload=workload_at(tmp_path), plan=Plan(loads=(1,), minutes=5, capacity_per_minute=1200))

    async def scenario() -> None:
        async with scripted_contestants(tmp_path, policies_of("fixed:large")) as contestants:
            ended = asyncio.Event()
            bench.told = lambda _: ended.set()
            task = asyncio.create_task(bench.play(contestants))
            await ended.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario())
    one = bench.result()["loads"][0]["policies"]["fixed:large"]
    assert 0 < one["minutes"] < 5
    assert 1 <= one["runs"] <= one["arrived"]


def test_outcomes_are_told_where_feedback_is_asked_for(tmp_path: pathlib.Path) -> None:
    plan = Plan(loads=(1,), minutes=0.005, rounds=1, capacity_per_minute=3000, feedback=1.0)
    bench = Bench(workload=workload_at(tmp_path), plan=plan)

    async def scenario() -> float:
        async with scripted_contestants(tmp_path, policies_of("elastic")) as contestants:
            await bench.play(contestants)
            known = contestants[0].models.outcomes
            ways = dict.fromkeys(("", "cot:think_tokens=0", "cot:think_tokens=64"))
            found = [
                record
                for name in ("sums", "calls")
                for model in ("small", "large")
                for record in known.records(name, model, ways).values()
            ]
            return sum(one.right + one.wrong for one in found)

    judged = run(scenario())
    assert judged >= len(bench.played[1, "elastic"].lines) > 3


def test_arrivals_are_the_same_again_and_by_weight(tmp_path: pathlib.Path) -> None:
    workload = workload_at(tmp_path)
    first, second = workload.classes
    heavy = replace(workload, classes=(replace(first, weight=3.0), second))
    found = arrivals_of(heavy, per_minute=600, minutes=10, seed=1)
    assert found == arrivals_of(heavy, per_minute=600, minutes=10, seed=1)
    assert found != arrivals_of(heavy, per_minute=600, minutes=10, seed=2)
    assert len(found) == pytest.approx(6000, rel=0.05)
    sums = sum(one.task.slo_class == "sums" for one in found) / len(found)
    assert sums == pytest.approx(0.75, abs=0.03)
    parts = rounds_of(found, minutes=10, rounds=4)
    assert sum(map(len, parts)) == len(found)
    assert all(0 <= one.at_s <= 150 for part in parts for one in part)


def line(arrival: int, *, right: bool = True, **changes: object) -> RunLine:
    made = {"policy": "p", "load": 1.0, "arrival": arrival, "task": "t", "slo_class": "sums", "model": "m",
            "way": "", "right": right, "about": "", "status": "answered", "seconds": 1.0, "tokens": 10,
            "prompt_tokens": 6, "completion_tokens": 4, "model_calls": 1, "cost": 0.0}  # fmt: skip
    return RunLine(**{**made, **changes})  # type: ignore[arg-type]


def test_goodput_counts_what_is_right_in_time_and_within_budget(tmp_path: pathlib.Path) -> None:
    workload = workload_at(tmp_path)
    lines = [line(0), line(1, right=False), line(2, missed=("deadline_s",)), line(3, missed=("max_cost",))]
    found = score(lines, workload, minutes=0.5, arrived=5, seed=0)
    assert (found["good"], found["right"], found["in_time"], found["within_budget"]) == (1, 3, 3, 3)
    assert found["goodput_per_minute"] == 2.0
    low, high = found["goodput_interval"]
    assert low < 2.0 < high
    assert found["classes"]["sums"]["floor_kept"]
    assert found["classes"]["calls"] == {"runs": 0}
    assert ratio([line(n) for n in range(8)], [line(n, right=n % 2 == 0) for n in range(8)], 0) is not None


def test_runs_are_written_and_read_again(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "runs.jsonl"
    append_lines(file, [line(0), line(1, missed=("deadline_s",))])
    assert read_lines([file]) == [line(0), line(1, missed=("deadline_s",))]
    file.write_text("{}\n")
    with pytest.raises(InvalidRequest, match=r"runs\.jsonl:1 is no run"):
        read_lines([file])


def test_a_run_that_its_deadline_cut_tells_nothing_of_how_good_its_model_is() -> None:
    late = ("deadline_s",)
    wrong = line(0, right=False, status="answered")
    cut = line(1, right=False, status="ended", missed=late)
    over_budget = line(2, right=False, status="ended", missed=("max_run_tokens",))
    right_but_late = line(3, right=True, status="answered", missed=late)
    assert [one.judges for one in (wrong, cut, over_budget, right_but_late)] == [True, False, True, True]
    counts = judged_of([wrong, cut, over_budget, right_but_late])
    assert counts == {wrong.model: {wrong.slo_class: (1, 3)}}


def test_policies_are_read_with_options_that_hold_commas() -> None:
    text = "fixed:a/cot:think_tokens=8,samples=3,elastic:hold=0,trials=0.1,strategy:b,router:cheapest/cot"
    fixed, joint, agent, router = policies_of(f"{text},remote:http://h:1/v1/c")[:4]
    assert (fixed.model, fixed.strategy) == ("a", "cot:think_tokens=8,samples=3")
    assert (joint.router.options, joint.model, joint.chooses) == ({"hold": 0, "trials": 0.1}, "auto", True)
    assert (agent.model, agent.router.name, agent.chooses) == ("b", "elastic", True)
    assert (router.router.name, router.model, router.strategy) == ("cheapest", "auto", "cot")
    (remote,) = policies_of("remote:http://h:1/v1/c")
    assert (remote.url, remote.there) == ("http://h:1/v1", "c")


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("", InvalidRequest, "names none"),
        ("fixed", InvalidRequest, "is no policy"),
        ("best:a", InvalidRequest, "is no policy"),
        ("remote:h/c", InvalidRequest, "names no endpoint"),
        ("fixed:a/cott", UnknownName, "cott"),
        ("router:cheapst", UnknownName, "cheapst"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        policies_of(text)


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("number: 10", "numbr: 10", 11, "numbr"),
        ("deadline_s: 5", "deadline_s: -5", 3, "deadline_s"),
        ("slo_class: calls", "slo_class: call", 1, "classes are sums, calls"),
        ("sum-2", "sum-1", 1, "'sum-1' twice"),
        ("  - name: calls", "  - ttft_s: 1\n    name: calls", 7, "set deadline_s"),
        ("quality: 0.4", "quality: [", 1, "expected"),
    ],
)
def test_a_wrong_workload_names_its_line(
    tmp_path: pathlib.Path, old: str, new: str, line: int, told: str
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(WORKLOAD.replace(old, new), "utf-8")
    with pytest.raises(InvalidRequest, match=told) as refused:
        read_workload(file)
    assert f"w.yaml:{line}: " in refused.value.message
    assert "--schema" in str(refused.value.hint)


def test_json_lines_hold_the_same(tmp_path: pathlib.Path) -> None:
    import yaml

    value = yaml.safe_load(WORKLOAD)
    file = tmp_path / "w.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in (*value["classes"], *value["tasks"])), "utf-8")
    assert read_workload(file) == workload_at(tmp_path)
    file.write_text(file.read_text("utf-8") + '\n{"slo_class": "sums"}\n', "utf-8")
    with pytest.raises(InvalidRequest, match=r"w\.jsonl:6: "):
        read_workload(file)
    assert json.loads(schema_json())["title"] == "workload.yaml"


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"equals": ("Paris",)}, "Answer: paris.", "Rome"),
        ({"contains": ("red", "blue"), "contains_share": 0.5}, "It is RED", "green"),
        ({"contains": ("a",), "excludes": ("b",)}, "a", "a b"),
        ({"matches": r"^\d{3}$"}, "123", "12"),
        ({"contains": ("a",), "max_words": 2}, "a b", "a b c"),
        ({"cites": (1, 3)}, "So it is [1], and [3].", "So it is [1][2][3]"),
    ],
)
def test_checks_take_what_is_right_alone(check: dict[str, object], right: str, wrong: str) -> None:
    made = AnswerCheck(**check)  # type: ignore[arg-type]
    assert made._wrong_text(right) is None
    assert made._wrong_text(wrong) is not None


def test_a_check_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="check is empty"):
        AnswerCheck()


def test_the_verb_names_what_it_wants(pentad_: Pentad, tmp_path: pathlib.Path) -> None:
    assert "give --workload FILE" in pentad_("bench", "elastic").err
    assert "there is no workload at 'no.yaml'" in pentad_("bench", "elastic", "--workload", "no.yaml").err
    (tmp_path / "w.yaml").write_text(WORKLOAD, "utf-8")
    wrong = pentad_("bench", "elastic", "--workload", "w.yaml", "--load", "much")
    assert "--load 0.5,0.8,1.2" in wrong.err
    negative = pentad_("bench", "elastic", "--workload", "w.yaml", "--load", "0")
    assert "load" in negative.err
    assert negative.status == 2
    assert json.loads(pentad_("bench", "elastic", "--schema").out)["properties"].keys() == {
        "classes",
        "tasks",
    }
