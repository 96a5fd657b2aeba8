"""Offloading: every policy chooses a permitted site and says why; the baselines choose as they say."""

from __future__ import annotations

import dataclasses
import time

import pytest
from offload_policies import built

from pentad.choice import Choice, build
from pentad.errors import Forbidden, Infeasible, Unavailable
from pentad.registry import known
from pentad.resource.offloading.base import (
    OffloadInput,
    OffloadOutcome,
    OffloadPolicy,
    OffloadTask,
    Site,
    estimate,
)
from pentad.types import Objective, RunContext

HERE = Site(name="here", slots=4, prompt_token_s=1e-3, token_s=0.05)
EDGE = Site(
    name="edge",
    kind="edge",
    bytes_per_s=1e6,
    latency_s=0.01,
    slots=4,
    prompt_token_s=1e-4,
    token_s=0.01,
    price_per_s=1e-3,
)
CLOUD = Site(
    name="cloud",
    kind="remote",
    bytes_per_s=1e6,
    latency_s=0.05,
    slots=64,
    prompt_token_s=1e-5,
    token_s=0.005,
    price_per_token=1e-3,
)
TASK = OffloadTask(id="r", prompt_tokens=100, answer_tokens=50, prompt_bytes=400)


def state(*sites: Site, task: OffloadTask = TASK, **context: object) -> OffloadInput:
    task = dataclasses.replace(task, context=RunContext(**context))  # type: ignore[arg-type]
    return OffloadInput(task=task, sites=sites, now_s=2.0)


def chosen(name: str, *sites: Site, **context: object) -> str:
    policy: OffloadPolicy = build("offload", Choice(name=name))
    return policy.start().choose(state(*sites, **context))[0]


@pytest.mark.parametrize("name", known("offload"))
class TestEveryPolicy:
    def policy(self, name: str) -> OffloadPolicy:
        return built(name)

    def test_equal_states_and_seeds_give_equal_choices_with_their_reasons(self, name: str) -> None:
        asked = state(HERE, EDGE, CLOUD)
        first, second = (self.policy(name).start(seed=7).choose(asked) for _ in range(2))
        assert first == second
        site, decision = first
        assert site in {"here", "edge", "cloud"}
        assert (decision.layer, decision.policy, decision.subject) == ("resource", name, "site")
        assert decision.chosen == site
        assert [each for each, _ in decision.candidates] == ["here", "edge", "cloud"]
        assert decision.at_s == 2.0

    def test_a_local_label_never_leaves_our_machines(self, name: str) -> None:
        site, decision = self.policy(name).start().choose(state(CLOUD, EDGE, data_label="local"))
        assert site == "edge"
        assert decision.constraint == "data label 'local'"
        with pytest.raises(Forbidden, match="serve a local model or change `data_label`"):
            self.policy(name).start().choose(state(CLOUD, data_label="local"))

    def test_money_is_never_exceeded(self, name: str) -> None:
        most = Objective(max_cost=0.01)
        site, decision = self.policy(name).start().choose(state(CLOUD, EDGE, objective=most))
        assert site == "edge"
        assert decision.constraint == "max_cost"
        with pytest.raises(Infeasible, match=r"the least is 0\.05.*raise `max_cost`"):
            self.policy(name).start().choose(state(CLOUD, objective=most))

    def test_no_site_is_said_to_be_none(self, name: str) -> None:
        with pytest.raises(Unavailable, match="no site can take requests now"):
            self.policy(name).start().choose(state())

    def test_is_told_outcomes_and_its_cost_is_of_the_right_order(self, name: str) -> None:
        policy = self.policy(name)
        working = policy.start()
        sites = tuple(dataclasses.replace(EDGE, name=f"e{i}") for i in range(64))
        asked = state(*sites)
        working.choose(asked)
        begin = time.thread_time()
        for _ in range(50):
            site, _ = working.choose(asked)
        took_s = (time.thread_time() - begin) / 50
        working.learn(OffloadOutcome(id="r", site=site, completion_s=1.0))
        assert took_s / 20 < policy.cost(64) < took_s * 20


def test_an_estimate_adds_sending_waiting_prompt_and_answer() -> None:
    busy = dataclasses.replace(EDGE, running=4, waiting=2, queued_tokens=300)
    found = estimate(TASK, busy)
    assert found.send_s == pytest.approx(2 * 0.01 + 400 / 1e6)
    assert found.prompt_s == pytest.approx(100 * 1e-4)
    assert found.answer_s == pytest.approx(50 * 0.01)
    assert found.wait_s == pytest.approx(300 * 1e-4 + 2 / 4 * 0.5)
    assert found.completion_s == found.send_s + found.wait_s + found.prompt_s + found.answer_s
    assert found.cost == pytest.approx((0.01 + 0.5 / 4) * 1e-3)
    assert estimate(TASK, HERE).send_s == 0
    assert estimate(TASK, CLOUD).cost == pytest.approx(50e-3)


def test_local_stays_where_it_is_however_long_the_queue() -> None:
    crowded = dataclasses.replace(HERE, running=4, waiting=10_000)
    assert chosen("local", CLOUD, EDGE, crowded) == "here"
    assert chosen("local", CLOUD, EDGE) == "edge"
    near = dataclasses.replace(EDGE, name="near", latency_s=0.001, running=4, waiting=9)
    assert chosen("local", EDGE, near) == "near"


def test_local_takes_the_least_loaded_of_equally_near_sites() -> None:
    one, two = (dataclasses.replace(EDGE, name=name, running=n) for name, n in (("one", 3), ("two", 2)))
    assert chosen("local", one, two) == "two"


def test_fastest_goes_away_only_while_that_is_faster() -> None:
    assert chosen("fastest", HERE, EDGE) == "edge"
    queue = dataclasses.replace(EDGE, running=4, waiting=24)
    assert chosen("fastest", HERE, queue) == "here"
    far = dataclasses.replace(EDGE, latency_s=5.0)
    assert chosen("fastest", HERE, far) == "here"
    thin = dataclasses.replace(EDGE, bytes_per_s=100.0)
    assert chosen("fastest", HERE, thin) == "here"


def test_flow_keeps_the_shares_of_the_plan_at_every_moment() -> None:
    flowing = build("offload", Choice(name="flow")).start()
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    served = dict.fromkeys(shares, 0)
    for n in range(1, 201):
        sites = (dataclasses.replace(HERE, name=s, weight=w, served=served[s]) for s, w in shares.items())
        served[flowing.choose(state(*sites))[0]] += 1
        assert all(abs(served[s] - n * w) <= 1 for s, w in shares.items())
