"""What runs want next is predicted from what is declared, announced and observed, and loaded before."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from stage_worlds import played, staged_runs

from pentad.errors import InvalidRequest
from pentad.resource.residual_life import mean_residual_s
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.next_stages import Call, NextStages
from pentad.resource.scaling.proactive import Proactive


def stage(run: str, model: str, begin_s: float, end_s: float, **announced: object) -> list[Call]:
    """A call of a run, from its beginning to its end."""
    return [
        Call(at_s=begin_s, run=run, model=model, **announced),  # type: ignore[arg-type]
        Call(at_s=end_s, run=run, model=model, ended=True, **announced),  # type: ignore[arg-type]
    ]


class TestPrediction:
    def test_a_call_is_expected_behind_what_is_left_of_the_stage_and_its_pause(self) -> None:
        stages = NextStages({})
        stages.note(stage("a", "planner", 0.0, 2.0) + stage("a", "coder", 8.0, 9.0, last=True))
        stages.note(stage("b", "planner", 20.0, 24.0) + stage("b", "coder", 28.0, 29.0, last=True))
        stages.note([Call(at_s=40.0, run="c", model="planner")])
        coder, of_the_next_run = stages.expected(41.0)["coder"]
        assert coder.chance == 1.0
        assert coder.in_s == pytest.approx((3.0 - 1.0) + 5.0), "calls of 2 and 4 s, pauses of 6 and 4 s"
        assert of_the_next_run.in_s > coder.in_s

    def test_what_is_declared_is_outweighed_by_what_runs_do(self) -> None:
        stages = NextStages({"planner": {"coder": 1.0}}, worth=2.0)

        def chances(at_s: float) -> Mapping[str, float]:
            stages.note([Call(at_s=at_s, run="now", model="planner")])
            found = stages.expected(at_s)
            names = [model for model in ("coder", "vision") if model in found]
            return {model: round(found[model][0].chance, 2) for model in names}

        assert chances(0.0) == {"coder": 1.0}
        for i in range(6):
            stages.note(stage(f"r{i}", "planner", 1.0, 2.0) + stage(f"r{i}", "vision", 3.0, 4.0, last=True))
        assert chances(10.0) == {"coder": 0.25, "vision": 0.75}
        fixed = NextStages({"planner": {"coder": 1.0}}, learns=False)
        fixed.note(stage("r", "planner", 1.0, 2.0) + stage("r", "vision", 3.0, 4.0, last=True))
        fixed.note([Call(at_s=5.0, run="now", model="planner")])
        assert set(fixed.expected(5.0)) == {"coder"}

    def test_what_a_run_announces_counts_alone(self) -> None:
        stages = NextStages({"planner": {"coder": 1.0}})
        stages.note(stage("a", "planner", 0.0, 2.0, next_model="vision", pause_s=7.0))
        expected = stages.expected(4.0)
        assert set(expected) == {"vision"}
        assert expected["vision"][0].in_s == 5.0
        stages.note(stage("a", "vision", 9.0, 10.0, last=True))
        assert not stages.expected(10.0)

    def test_a_pause_that_has_outlasted_the_short_ones_is_a_long_one(self) -> None:
        assert mean_residual_s((1.0, 1.0, 10.0), 0.0) == 4.0
        assert mean_residual_s((1.0, 1.0, 10.0), 2.0) == 8.0
        assert mean_residual_s((1.0, 1.0, 10.0), 30.0) == 30.0, "one that outlasts all takes as long again"


def up(name: str, **load: int) -> Pool:
    return Pool(members=(Member(name=name, state="ready", slots=4, **load),), arrived=1)  # type: ignore[arg-type]


class TestPreparing:
    def test_the_model_that_is_expected_is_started_and_the_one_that_nobody_wants_gives_way(self) -> None:
        working = Proactive(follows={"planner": {"coder": 1.0}}, horizon_s=60.0).start()
        calls = (Call(at_s=0.0, run="a", model="planner"),)
        pools = {"planner": up("p", running=1), "writer": up("w"), "coder": Pool()}
        plan = working.decide(ScalerInput(pools=pools, now_s=0.0, calls=calls))
        assert (plan.start, plan.stop) == ((), ("w",))
        free = pools | {"writer": Pool(), "coder": Pool(places=(Place(name="c", cold_start_s=3.0),))}
        plan = working.decide(ScalerInput(pools=free, now_s=0.5))
        assert (plan.start, plan.stop) == (("c",), ())
        (decision,) = plan.decisions
        assert (decision.constraint, dict(decision.candidates)["wanted in s"]) == ("expected", 9.5)

    def test_requests_that_wait_come_before_what_is_expected(self) -> None:
        working = Proactive(follows={"planner": {"coder": 1.0}}).start()
        calls = (Call(at_s=0.0, run="a", model="planner"),)
        pools = {"planner": up("p", running=1), "coder": up("c"), "writer": Pool(waiting=1, arrived=1)}
        plan = working.decide(ScalerInput(pools=pools, now_s=0.0, calls=calls))
        assert plan.stop == ("c",)

    def test_a_busy_model_never_gives_way(self) -> None:
        working = Proactive().start()
        pools = {"planner": up("p", running=1), "writer": Pool(waiting=9, arrived=9)}
        assert not working.decide(ScalerInput(pools=pools, now_s=0.0)).stop

    def test_chances_that_are_none_are_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequest, match=r"follows\.planner\.coder is 2"):
            Proactive(follows={"planner": {"coder": 2}})
        with pytest.raises(InvalidRequest, match=r"chances of follows\.planner together"):
            Proactive(follows={"planner": {"coder": 0.7, "vision": 0.7}})


@pytest.mark.row("fut-proactive", "mechanism")
@pytest.mark.row("fut-dynamic-res", "mechanism")
def test_later_stages_of_a_run_find_their_models_loaded_once_a_run_was_seen() -> None:
    """Three models on two devices."""
    follows = {"planner": {"coder": 1.0}, "coder": {"writer": 1.0}, "writer": {}}
    items = staged_runs(follows, 5, runs=4, every_s=30.0)
    waits = {}
    for name, scaler in (("on demand", Proactive(looks_ahead=False)), ("ahead", Proactive())):
        report = played(items, scaler, models=tuple(follows), devices=2, cold_start_s=2.0)
        assert len(report.total.completed) == len(items)
        waits[name] = [record.cold_wait_s for record in report.total.records]
        assert report.to_dict()["cold_wait_s"] == pytest.approx(sum(waits[name]))
    behind = [i for i, item in enumerate(items) if item.model != "planner" and item.run != "r0"]
    assert len(behind) == 6
    assert sum(waits["on demand"][i] > 0 for i in behind) >= 5
    assert all(waits["ahead"][i] == 0 for i in behind)
