"""The joint choice: what it keeps, what it prefers, that it can be made again, and that it reacts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from elastic_runs import Runs
from elastic_worlds import DIRECT, LARGE, SMALL, THINK, VOTE, WAYS, arm, record, situation, wishing
from pentad.errors import Infeasible, InvalidRequest
from pentad.model.control.outcomes import Outcomes
from pentad.model.control.search import Weighing, decide
from pentad.model.control.situation import PART, Arm, Record, Situation, Way
from pentad.model.control.what_if import Outcome, policy_of, situation_of, what_if
from pentad.model.prices import Price
from pentad.model.routing.elastic import Elastic
from pentad.model.routing.speed import Speed
from pentad.types import Budget, Forecast, Objective, Request, RunContext, Usage


def chosen(state: Situation, **options: float) -> tuple[str, str]:
    decision = Elastic(**options).again(state)  # type: ignore[arg-type]
    return decision.chosen, dict(decision.parts)["agent: way"]


@pytest.mark.row("fw-five-layer", "mechanism")
def test_the_objective_alone_changes_the_plan_in_three_layers_and_more() -> None:
    plans = {
        prefer: Elastic().again(wishing(prefer=prefer, deadline_s=60.0 if prefer == "latency" else None))
        for prefer in ("latency", "quality", "cost", "energy")
    }
    levers = {prefer: {"model": d.chosen, **dict(d.parts)} for prefer, d in plans.items()}
    assert levers["quality"]["model"] == "cloud"
    assert levers["quality"]["agent: way"] == VOTE
    assert levers["quality"]["execution: place"] == "remote"
    assert levers["cost"]["model"] == "small"
    assert levers["cost"]["agent: way"] == DIRECT
    assert levers["cost"]["resource: queue"] == "patient"
    assert levers["latency"]["resource: queue"] != "patient"
    assert levers["energy"]["model"] == "cloud", "what is computed elsewhere takes no joule here"
    local = Elastic().again(replace(wishing(prefer="energy"), arms=(SMALL, LARGE)))
    assert local.chosen == "small"


@pytest.mark.row("het-app-slo", "mechanism")
@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, ("cloud", VOTE)),
        ({"max_cost": 0.005}, ("large", THINK)),
        ({"deadline_s": 0.5}, ("small", DIRECT)),
        ({"deadline_s": 1.0, "prefer": "quality"}, ("cloud", DIRECT)),
        ({"max_energy_j": 60.0, "prefer": "quality"}, ("large", DIRECT)),
    ],
)
def test_limits_bind_and_the_rest_is_as_good_as_it_gets(
    wishes: dict[str, object], expected: tuple[str, str]
) -> None:
    assert chosen(wishing(**wishes)) == expected


def test_a_floor_goes_by_what_was_measured_where_that_is_enough_and_by_the_certificate_else() -> None:
    assert chosen(wishing(min_quality=0.7, prefer="cost"))[0] == "large"
    unmeasured = arm("new", 0.001, 0.1, (0.9, 0.9, 0.9), records={})
    assert chosen(replace(wishing(min_quality=0.7, prefer="cost"), arms=(unmeasured, LARGE)))[0] == "new"
    uncertified = replace(unmeasured, quality=None)
    assert chosen(replace(wishing(min_quality=0.7, prefer="cost"), arms=(uncertified, LARGE)))[0] == "large"
    with pytest.raises(Infeasible, match=r"quality of 0\.99"):
        Elastic().again(wishing(min_quality=0.99))


def test_an_answer_gets_no_longer_than_time_money_and_tokens_leave() -> None:
    state = replace(wishing(prefer="quality"), arms=(LARGE,), budget=Budget(tokens=300))
    decision = Elastic().again(state)
    assert dict(decision.parts)["agent: way"] in (DIRECT, THINK)
    assert int(dict(decision.parts)["model: answer tokens"]) + 220 <= 300


def test_what_is_at_work_stays_until_another_is_enough_better() -> None:
    near = arm("near", 0.0095, 0.95, (0.2, 0.35, 0.42))
    state = replace(wishing(prefer="cost"), arms=(SMALL, near))
    assert chosen(state)[0] == "near"
    assert chosen(replace(state, last=("small", DIRECT)))[0] == "small"
    assert chosen(replace(state, last=("small", DIRECT)), hold=0.0)[0] == "near"


def test_something_less_known_is_tried_within_limits_only_and_its_chance_is_told() -> None:
    new = arm("new", 0.02, 2.0, (0.3, 0.35, 0.5), records={})
    state = replace(wishing(max_cost=0.01, min_quality=0.3), arms=(SMALL, new), draw=0.05)
    decision = Elastic(trials=0.1).again(state)
    assert decision.chosen == "new"
    assert dict(decision.parts)["propensity"] == "0.1"
    assert Elastic(trials=0.1).again(replace(state, draw=0.5)).chosen == "small"
    assert Elastic(trials=0.1).again(replace(state, alarm="late")).chosen == "small"
    poor = replace(state, arms=(SMALL, replace(new, quality=0.2)))
    assert Elastic(trials=0.1).again(poor).chosen == "small"


def test_the_run_stays_where_its_cache_is() -> None:
    long = (Way(name="", prompt_tokens=2000, max_tokens=20),)
    one, other = (arm(name, 0.01, 1.0, (0.5, 0.5, 0.5), records={}) for name in ("a", "b"))
    state = replace(wishing(prefer="latency"), ways=long, arms=(one, replace(other, cached_tokens=1900)))
    assert chosen(state)[0] == "b"


arms = st.builds(
    Arm,
    name=st.sampled_from(["a", "b", "c", "d"]),
    context_length=st.integers(400, 8192),
    remote=st.booleans(),
    price=st.builds(Price, prompt=st.integers(0, 50).map(float), completion=st.integers(0, 50).map(float)),
    quality=st.none() | st.floats(0, 1),
    speed=st.none()
    | st.builds(Speed, prompt_s=st.floats(0, 5), prompt_tokens=st.floats(1, 500), token_s=st.floats(0, 1)),
    waiting=st.floats(0, 20),
    running=st.floats(0, 20),
    joules_per_token=st.floats(0, 5),
    slower=st.floats(1, 10),
    cached_tokens=st.integers(0, 500),
    records=st.dictionaries(
        st.sampled_from([DIRECT, THINK, VOTE]),
        st.builds(
            Record,
            right=st.integers(0, 50).map(float),
            wrong=st.integers(0, 50).map(float),
            tokens=st.floats(1, 300),
            spread=st.floats(0, 50),
            answers=st.integers(1, 200),
        ),
    ),
)
situations = st.builds(
    Situation,
    task=st.just("t"),
    ways=st.just(WAYS),
    arms=st.lists(arms, min_size=1, max_size=4, unique_by=lambda one: one.name).map(tuple),
    objective=st.builds(
        Objective,
        deadline_s=st.none() | st.floats(0.1, 60),
        max_cost=st.none() | st.floats(0, 0.1),
        prefer=st.sampled_from([None, "latency", "quality", "cost", "energy"]),
    ),
    budget=st.builds(Budget, tokens=st.none() | st.integers(0, 5000), cost=st.none() | st.floats(0, 0.1)),
    last=st.none() | st.tuples(st.sampled_from("abcd"), st.sampled_from([DIRECT, THINK])),
    draw=st.floats(0, 1, exclude_max=True),
    alarm=st.sampled_from(["", "late"]),
)


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(situations)
def test_a_decision_is_made_again_from_its_record_to_the_last_bit(state: Situation) -> None:
    policy = Elastic(trials=0.2)
    decision = policy.again(state)
    kept = situation_of(decision)
    assert kept == state
    assert policy.again(kept) == decision
    found = what_if(decision, policy)
    assert found.same
    assert found.chosen == decision


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(situations)
def test_nothing_that_was_left_out_as_dominated_is_better(state: Situation) -> None:
    """The exhaustive choice over all pairs is never better in what the objective prefers."""
    whole = decide(state, Weighing(hold=0.0))
    assert whole is not None
    prefer = state.objective.prefer
    kept = [one for one in whole.weighed if not one.missed]
    if prefer is None or not kept:
        return
    of = {
        "latency": lambda p: p.total_s,
        "quality": lambda p: -p.success,
        "cost": lambda p: p.money,
        "energy": lambda p: p.joules,
    }[prefer]
    replaced = replace(state, last=None)
    best = decide(replaced, Weighing(hold=0.0))
    assert best is not None
    assert of(best.chosen.prediction) <= min(of(one.prediction) for one in kept) + 1e-9


def test_other_policies_answer_from_the_same_record() -> None:
    decision = Elastic().again(wishing(prefer="quality"))
    cheap = what_if(decision, policy_of("cheapest"))
    assert (cheap.recorded.chosen, cheap.chosen.chosen, cheap.same) == ("cloud", "small", False)
    observed = Outcome(seconds=9.0, money=1.0, tokens=10.0, joules=0.0)
    assert cheap.corrected(observed) == cheap.expected
    same = what_if(decision, policy_of("elastic"))
    assert same.corrected(observed).seconds == pytest.approx(9.0)
    bare = replace(decision, parts=())
    with pytest.raises(InvalidRequest, match="does not say what it was made from"):
        what_if(bare, policy_of("cheapest"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        situation_of(replace(decision, parts=((PART, "{"),)))


def asked(number: int, seconds: float, model: str = "small") -> Request:
    forecast = Forecast(task="sums", way=THINK, seconds=seconds, money=0.01)
    return Request(id=str(number), model=model, text="x", forecast=forecast)


class TestDrift:
    """Predictions that do not hold raise an alarm within some answers; trust comes back with calm."""

    def test_a_model_that_got_slower_by_half_and_more_raises_the_alarm_and_is_predicted_slower(self) -> None:
        known, now_s = Outcomes(), 0.0
        for number in range(4):
            known.begun(asked(number, 1.0), now_s)
            now_s += 1.0
            known.ended(str(number), Usage(completion_tokens=10), now_s)
        assert known.alarm(now_s) == ""
        assert known.slower("small") == pytest.approx(1.0, abs=0.05)
        began_s = now_s
        for number in range(10, 13):
            known.begun(asked(number, 1.0), now_s)
            now_s += 2.0
            known.ended(str(number), Usage(completion_tokens=10), now_s)
        assert "'small'" in known.alarm(now_s)
        assert now_s - began_s <= 10.0
        assert known.slower("small") > 1.5
        assert known.alarm(now_s + 31.0) == ""

    def test_answers_that_hang_are_noticed_before_they_end(self) -> None:
        known = Outcomes()
        for number in range(3):
            known.begun(asked(number, 1.0), 0.0)
        assert known.alarm(1.2) == ""
        assert "answers of 'small' that are under way are overdue" in known.alarm(2.0)

    def test_wrong_prices_raise_it_too(self) -> None:
        known = Outcomes()
        for number in range(3):
            known.begun(asked(number, 0.0), 0.0)
            known.ended(str(number), Usage(completion_tokens=10, cost=0.05), 1.0)
        assert "'small' costs 5.0 times" in known.alarm(1.0)

    def test_in_safe_mode_seconds_count_half_as_much_again_and_the_reason_is_told(self) -> None:
        state = wishing(deadline_s=2.0, prefer="quality")
        usual, safe = Elastic().again(state), Elastic().again(replace(state, alarm="'cloud' is late"))
        assert dict(usual.parts)["predicted"] != dict(safe.parts)["predicted"]
        assert dict(safe.parts)["safe mode"] == "'cloud' is late"
        assert safe.notice == "predictions do not hold now: 'cloud' is late"

    def test_lengths_energy_and_the_run_s_cache_are_learnt(self) -> None:
        known = Outcomes()
        request = replace(asked(1, 1.0), context=RunContext(run_id="r"))
        known.begun(request, 0.0)
        known.ended("1", Usage(prompt_tokens=90, completion_tokens=10), 1.0)
        assert known.records("sums", "small", {THINK: None})[THINK].tokens == 10.0
        assert known.cached_tokens("r", "small") == 100
        assert known.cached_tokens("r", "large") == 0
        known.begun(asked(2, 1.0), 0.0)
        known.ended("2", None, 9.0)
        assert known.records("sums", "small", {THINK: None})[THINK].answers == 1


def test_many_models_and_ways_leave_few_combinations() -> None:
    draw = random.Random(7)
    many = tuple(
        arm(
            f"m{n}",
            draw.uniform(0.001, 0.1),
            draw.uniform(0.1, 50),
            (draw.random(), draw.random(), draw.random()),
        )
        for n in range(16)
    )
    found = decide(situation(arms=many), Weighing())
    assert found is not None
    assert found.pruned > 24


@pytest.mark.parametrize("options", [{"trials": 0.9}, {"slack": 2}, {"hold": -1}, {"answer_tokens": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Elastic(**options)  # type: ignore[arg-type]


def test_success_counts_for_the_kind_of_task_alone() -> None:
    known = Outcomes()
    for _ in range(30):
        known.judged("sums", "small", "", right=True)
    assert known.records("sums", "small", {"": None})[""] == Record(right=30.0)
    assert known.records("chat", "small", {"": None}) == {}
    assert record(0.5, 8).right == 50


def test_random_runs_pass_no_budget() -> None:
    runs = Runs(seed=5)
    for _ in range(100):
        runs.one()
    assert (runs.tokens_over, runs.money_over) == (0, 0.0)
    assert runs.partial > 0
    assert runs.calls > 100
