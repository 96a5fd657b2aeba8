"""Edge and cloud: better together than each alone, and still so when a link is no longer what it was."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from edge_worlds import CLOUD, EDGES, load, replay

from evidence.plugin import Measure
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.device import Cluster, Link
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    OffloadTask,
    Site,
    estimate,
)
from pentad.resource.simulator import LinkChange, SimulationReport
from pentad.resource.simulator.links import Links
from pentad.types import Objective

NEAR = Site(name="near", kind="edge", bytes_per_s=1e7, slots=4, token_s=0.05)
FAR = Site(name="far", kind="edge", bytes_per_s=1e6, latency_s=0.02, slots=4, token_s=0.02)
DEADLINE = Objective(deadline_s=4.0)


def ask(policy: Offloading, number: int, now_s: float, **changes: float) -> tuple[str, str | None]:
    """Who gets a request of 20 tokens: 1 s nearby, 0.44 s and the link far away."""
    task = OffloadTask(id=f"r{number}", prompt_tokens=10, answer_tokens=20, prompt_bytes=1000)
    far = dataclasses.replace(FAR, **changes)  # type: ignore[arg-type]
    site, decision = policy.choose(OffloadInput(task=task, sites=(NEAR, far), now_s=now_s))
    return site, decision.constraint


class TestEdgeCloud:
    def policy(self, **options: float) -> Offloading:
        return build("offload", Choice(name="edge-cloud", options=options)).start()  # type: ignore[no-any-return]

    @pytest.mark.row("fw-edge-cloud", "mechanism")
    def test_a_busy_link_and_a_full_site_are_left(self) -> None:
        assert ask(self.policy(), 0, 0.0)[0] == "far"
        assert ask(self.policy(), 0, 0.0, link_wait_s=0.8)[0] == "near"
        assert ask(self.policy(), 0, 0.0, waiting=8)[0] == "near"

    def test_a_site_that_takes_longer_than_estimated_is_left_and_tried_again_later(self) -> None:
        policy = self.policy(rate=1.0, forget_s=30.0)
        assert ask(policy, 0, 0.0)[0] == "far"
        policy.learn(OffloadOutcome(id="r0", site="far", completion_s=3.0))
        assert ask(policy, 1, 3.5)[0] == "near"
        assert ask(policy, 2, 100.0)[0] == "far"

    def test_an_overdue_request_counts_before_it_ends(self) -> None:
        policy = self.policy()
        assert ask(policy, 0, 0.0)[0] == "far"
        assert ask(policy, 1, 0.5)[0] == "far"
        assert ask(policy, 2, 1.5)[0] == "near"

    def test_a_refused_request_teaches_nothing(self) -> None:
        policy = self.policy(rate=1.0)
        ask(policy, 0, 0.0)
        policy.learn(OffloadOutcome(id="r0", site="far", completion_s=None))
        policy.learn(OffloadOutcome(id="unknown", site="far", completion_s=99.0))
        assert ask(policy, 1, 5.0)[0] == "far"


class TestRealtime:
    @pytest.mark.row("res-realtime", "mechanism")
    def test_surprises_switch_the_policy_without_restart_and_calm_switches_it_back(self) -> None:
        choice = Choice(name="realtime", options={"usual": "fastest", "changed": "local", "calm_s": 20.0})
        policy: Offloading = build("offload", choice).start()
        assert ask(policy, 0, 0.0) == ("far", "by 'fastest'")
        assert ask(policy, 1, 0.1) == ("far", "by 'fastest'")
        assert ask(policy, 2, 2.0) == (
            "near",
            "switched to 'local'",
        )  # two are overdue: local is nearest first
        for number in (0, 1, 2):
            policy.learn(OffloadOutcome(id=f"r{number}", site="far", completion_s=2.2))
        assert ask(policy, 3, 5.0) == ("near", "by 'local'")
        policy.learn(OffloadOutcome(id="r3", site="near", completion_s=1.0))
        assert ask(policy, 4, 40.0) == ("far", "switched to 'fastest'")

    @pytest.mark.parametrize("options", [{"slower": 1.0}, {"surprises": 0}, {"window": 1}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            build("offload", Choice(name="realtime", options=options))


class TestLinks:
    LINK = Link(source="a", target="b", bytes_per_s=100.0, latency_s=0.5)

    def links(self) -> Links:
        return Links(Cluster(devices=(), links=(self.LINK,)))

    def test_transfers_wait_for_each_other(self) -> None:
        links = self.links()
        assert links.send(self.LINK, 200, 0.0) == 2.5
        assert links.wait_s("a", "b", 0.5) == 1.5
        assert links.send(self.LINK, 100, 0.5) == 3.0  # 1.5 s of waiting, 1 s on it, and its latency
        assert links.wait_s("a", "b", 9.0) == links.wait_s("b", "a", 0.0) == 0.0

    def test_a_change_counts_for_later_transfers_and_is_told_to_nobody(self) -> None:
        links = self.links()
        links.change("a", "b", 0.5)
        assert links.send(self.LINK, 100, 0.0) == 2.5
        found = links.link("a", "b")
        assert found is not None
        assert found.bytes_per_s == 100.0

    def test_what_waits_on_the_link_is_in_the_estimate(self) -> None:
        task = OffloadTask(id="r", prompt_tokens=1, answer_tokens=1, prompt_bytes=1000)
        busy = dataclasses.replace(FAR, link_wait_s=3.0)
        assert estimate(task, busy).send_s == pytest.approx(estimate(task, FAR).send_s + 3.0)


@pytest.mark.thorough
@pytest.mark.row("fw-edge-cloud", "effect", claims=(1,))
def test_together_they_are_faster_than_each_alone_on_most_of_the_grid(measured: Measure) -> None:
    rates, widths = (2, 4, 6, 8, 10), (3e3, 1e4, 3e4, 1e6)
    better = []
    for rate, width in itertools.product(rates, widths):
        trace = load(rate, 200, seed=31)
        edge = replay(trace, width, "fastest", among=EDGES).total.completion.p95
        cloud = replay(trace, width, "fastest", among=(CLOUD,)).total.completion.p95
        both = replay(trace, width, "edge-cloud").total.completion.p95
        print(f"{rate}/s, {width:g} B/s: edge {edge:.2f} s, cloud {cloud:.2f} s, both {both:.2f} s")
        better.append(both < min(edge, cloud))
    measured("share of the grid where p95 is below both", sum(better) / len(better), at_least=0.8)


def met(report: SimulationReport, begin_s: float) -> float:
    """Share of the requests that arrived from then on and met the deadline."""
    late = [record.meets(DEADLINE) for record in report.records if record.arrived_s >= begin_s]
    return sum(late) / len(late)


@pytest.mark.thorough
@pytest.mark.row("res-realtime", "effect", claims=(1,))
@pytest.mark.parametrize("seed", [41, 42])
def test_ten_seconds_after_a_link_has_collapsed_deadlines_are_met_again(seed: int, measured: Measure) -> None:
    trace = load(5.0, 600, seed)
    collapse = [LinkChange(at_s=40.0, source=EDGES[0], target=CLOUD, factor=0.001)]
    ours, plain = (
        replay(trace, 1e6, policy, objective=DEADLINE, changes=collapse).total
        for policy in ("realtime", "fastest")
    )
    print(f"\nafter 10 s: realtime {met(ours, 50.0):.1%}, fastest alone {met(plain, 50.0):.1%}")
    measured(f"deadlines met from 10 s after the change on, seed {seed}", met(ours, 50.0), at_least=0.95)
    measured("the same over the policy that is not watched", met(ours, 50.0) - met(plain, 50.0), at_least=0.0)
