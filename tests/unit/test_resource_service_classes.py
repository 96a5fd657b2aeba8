"""Service classes: one name in a request decides router, place, order and label; four of them at once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping

import numpy as np
import pytest
from resource_samples import GPU, LLAMA_1B
from test_resource_offloading import CLOUD, EDGE, HERE, TASK

from evidence.plugin import Measure
from gateway_app import CHAT, call, param_of, scripted_app
from pentad.application.gateway.metering import Pulse, metered
from pentad.application.gateway.metrics import Metrics
from pentad.errors import InvalidRequest, UnknownName
from pentad.execution.backend import Capabilities, ChoiceDone, Delta, StreamDone
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.model.prices import Price
from pentad.model.routing.base import Candidate, RouterInput
from pentad.model.routing.objective import ByObjective
from pentad.resource.offloading.base import OffloadInput
from pentad.resource.offloading.objective import ForObjective
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.data_parallel import DataParallel
from pentad.resource.placement.plan import Plan
from pentad.resource.service_classes import ServiceClass, class_of, label_of
from pentad.resource.simulator import (
    Fleet,
    Policies,
    RequestRecord,
    SimulationOptions,
    TraceItem,
    in_classes,
    simulate_fleet,
)
from pentad.types import Objective, Request, RunContext, Usage

ROW = "het-app-slo"
CLASSES = (
    ServiceClass(name="interactive", priority=0, ttft_s=0.3, inter_token_s=0.03),
    ServiceClass(name="accurate", priority=1, quality=0.8, deadline_s=20.0),
    ServiceClass(name="cheap", priority=3, max_cost=0.005),
    ServiceClass(name="private", priority=2, data_label="local", deadline_s=20.0),
)


@pytest.mark.row(ROW, "mechanism")
class TestRequest:
    def reached(self, pentad: Mapping[str, object], **headers: str) -> Request:
        app, backend = scripted_app(service_classes=CLASSES)
        answer = call(app, "POST", "/v1/chat/completions", body={**CHAT, "pentad": pentad}, headers=headers)
        assert answer.status_code == 200, answer.text
        (request,) = backend.requests
        return request

    def test_the_name_alone_brings_objective_priority_and_label(self) -> None:
        request = self.reached({"slo_class": "interactive"})
        assert request.context.objective == Objective(ttft_s=0.3, inter_token_s=0.03)
        assert request.priority == 0
        request = self.reached({}, **{"x-pentad-slo-class": "private"})
        assert request.context.data_label == "local"
        assert request.context.objective == Objective(deadline_s=20.0)
        assert request.priority == 2

    def test_what_a_request_says_itself_counts_first_but_never_against_the_label(self) -> None:
        request = self.reached({"slo_class": "interactive", "slo": {"ttft_s": 2.0}, "priority": 5})
        assert request.context.objective == Objective(ttft_s=2.0, inter_token_s=0.03)
        assert request.priority == 5
        app, backend = scripted_app(service_classes=CLASSES)
        body = {**CHAT, "pentad": {"slo_class": "private", "data_label": "public"}}
        answer = call(app, "POST", "/v1/chat/completions", body=body)
        assert answer.status_code == 400
        assert "leave data_label out" in answer.text
        assert not backend.requests

    def test_who_names_no_class_has_that_of_agent_tenant_or_path(self) -> None:
        classes = (
            ServiceClass(name="of-path", routes=("/v1/chat/completions",), priority=7),
            ServiceClass(name="of-tenant", tenants=("ada",), prefer="energy"),
            ServiceClass(name="of-agent", agents=("clerk",)),
        )
        app, backend = scripted_app(service_classes=classes)
        assert call(app, "POST", "/v1/chat/completions", body=CHAT).status_code == 200
        assert backend.requests[0].priority == 7
        path = "/v1/chat/completions"
        found = class_of(classes, tenant="ada", route=path)
        assert found is not None
        assert (found.name, found.objective.prefer) == ("of-tenant", "energy")
        found = class_of(classes, tenant="ada", agent="clerk", route=path)
        assert found is not None
        assert found.name == "of-agent"
        assert class_of(classes[1:], tenant="other", route=path) is None

    def test_metrics_tell_how_each_class_is_kept_and_what_is_left_of_its_error_budget(self) -> None:
        strict = ServiceClass(name="strict", max_cost=0.0, target=0.5)
        metrics = Metrics(dict, classes=(strict, CLASSES[0]))
        for kept in (True, True, True, False):
            metrics.classes.count("strict", kept=kept)
        told = metrics.text().decode()
        assert 'pentad_class_requests_total{outcome="kept",slo_class="strict"} 3.0' in told
        assert 'pentad_class_requests_total{outcome="missed",slo_class="strict"} 1.0' in told
        assert 'pentad_class_error_budget_left{slo_class="strict"} 0.5' in told
        assert 'pentad_class_error_budget_left{slo_class="interactive"} 1.0' in told
        assert [each.attainment for each in metrics.classes.report()] == [0.75, None]

    def test_requests_are_counted_for_their_class(self) -> None:
        async def deltas() -> AsyncGenerator[Delta, None]:
            yield ChoiceDone(reason="stop")
            yield StreamDone(usage=Usage(cost=0.02))

        async def counted() -> Metrics:
            metrics = Metrics(dict, classes=CLASSES)
            aim = CLASSES[2].objective
            made = metered(deltas(), aim, "m", metrics=metrics, pulse=Pulse(), clock=float, slo_class="cheap")
            assert len([delta async for delta in made]) == 2
            return metrics

        found = {each.name: each for each in asyncio.run(counted()).classes.report()}
        assert (found["cheap"].kept, found["cheap"].missed) == (0, 1)
        assert found["accurate"].error_budget_left == 1.0

    def test_an_unknown_class_is_refused_with_the_nearest(self) -> None:
        app, _ = scripted_app(service_classes=CLASSES)
        body = {**CHAT, "pentad": {"slo_class": "interactiv"}}
        answer = call(app, "POST", "/v1/chat/completions", body=body)
        assert answer.status_code == 400
        assert "did you mean 'interactive'?" in answer.text
        assert param_of(answer) == "slo_class"

    def test_settings_with_two_classes_of_a_name_or_an_impossible_promise_are_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="'cheap' twice"):
            scripted_app(service_classes=(CLASSES[2], CLASSES[2]))
        with pytest.raises(InvalidRequest, match="ttft_s"):
            ServiceClass(name="none", ttft_s=0.0)

    def test_a_trace_names_them_too(self) -> None:
        item = TraceItem(id="r", prompt_tokens=1, output_tokens=1, slo_class="private")
        (found,) = in_classes([item], CLASSES)
        assert (found.priority, found.data_label, found.objective) == (2, "local", Objective(deadline_s=20.0))
        with pytest.raises(UnknownName, match="no service class"):
            in_classes([dataclasses.replace(item, slo_class="other")], CLASSES)
        assert label_of("local", CLASSES[0]) == "local"


@pytest.mark.row(ROW, "mechanism")
class TestPlace:
    """HERE is free and done in 2.6 s, EDGE costs about 0.0001 and takes 0.5 s, CLOUD 0.05 and 0.35 s."""

    def chosen(self, **context: object) -> tuple[str, str | None]:
        task = dataclasses.replace(TASK, context=RunContext(**context))  # type: ignore[arg-type]
        asked = OffloadInput(task=task, sites=(HERE, EDGE, CLOUD), now_s=0.0)
        site, decision = ForObjective().start().choose(asked)
        return site, decision.constraint

    def test_the_cheapest_that_keeps_the_wishes_is_taken(self) -> None:
        assert self.chosen() == ("here", None)
        assert self.chosen(objective=Objective(deadline_s=1.0)) == ("edge", "deadline_s")
        assert self.chosen(objective=Objective(inter_token_s=0.007)) == ("cloud", "inter_token_s")

    def test_where_none_keeps_them_the_fastest_serves(self) -> None:
        assert self.chosen(objective=Objective(deadline_s=0.1)) == ("cloud", "deadline_s")

    def test_the_margin_decides_what_counts_as_kept(self) -> None:
        asked = OffloadInput(
            task=dataclasses.replace(TASK, context=RunContext(objective=Objective(inter_token_s=0.011))),
            sites=(EDGE, CLOUD),
            now_s=0.0,
        )
        assert ForObjective(margin=0.05).start().choose(asked)[0] == "edge"
        assert ForObjective(margin=0.2).start().choose(asked)[0] == "cloud"


SMALL = dataclasses.replace(LLAMA_1B, name="small")
LARGE = uniform_spec(
    name="large",
    family="llama",
    vocab_size=128_256,
    layers=28,
    width=3072,
    heads=24,
    kv_heads=8,
    head_dim=128,
    ffn_width=8192,
    context_length=131_072,
    positions=Rope(base=500_000.0, dim=128),
)
MODELS = {
    "small": Candidate(
        can=Capabilities(model="small", context_length=131_072),
        price=Price(prompt=0.1, completion=0.1),
        quality=0.5,
    ),
    "large": Candidate(
        can=Capabilities(model="large", context_length=131_072),
        price=Price(prompt=0.4, completion=0.4),
        quality=0.9,
    ),
}


def device(name: str, price_per_hour: float, *, speed: float, remote: bool = False) -> DeviceProfile:
    memory = tuple(
        dataclasses.replace(tier, read_bytes_per_s=tier.read_bytes_per_s * speed) for tier in GPU.memory
    )
    flops = {precision: rate * speed for precision, rate in GPU.flops_per_s.items()}
    return dataclasses.replace(
        GPU, name=name, memory=memory, flops_per_s=flops, price_per_hour=price_per_hour, remote=remote
    )


DEVICES = (
    device("own-1", 0.5, speed=0.3),
    device("own-2", 1.0, speed=0.6),
    device("own-3", 1.0, speed=0.6),
    device("cloud-1", 6.0, speed=1.5, remote=True),
    device("cloud-2", 6.0, speed=1.5, remote=True),
)
PLACES = {"small": ("own-1", "own-2", "cloud-1"), "large": ("own-3", "cloud-2")}


def fleets() -> tuple[Fleet, ...]:
    """Small models at home and in the cloud, large ones at both as well; a device has one model."""
    cluster = Cluster(devices=DEVICES, default_link=LinkSpeed(bytes_per_s=1e8, latency_s=0.005))
    return tuple(
        Fleet(spec=spec, cluster=cluster, plan=plan(spec, cluster, PLACES[spec.name]))
        for spec in (SMALL, LARGE)
    )


def plan(spec: ModelSpec, cluster: Cluster, names: tuple[str, ...]) -> Plan:
    part = Cluster(devices=tuple(cluster.device(name) for name in names), default_link=cluster.default_link)
    return DataParallel().plan(PlacementProblem(spec=spec, cluster=part))


def load(count: int, rate_per_s: float, seed: int) -> tuple[TraceItem, ...]:
    """Memoryless arrivals of four classes alike in number."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate_per_s, count))
    return tuple(
        TraceItem(
            id=f"r{i}",
            arrival_s=float(at),
            prompt_tokens=int(draw.integers(100, 600)),
            output_tokens=int(draw.integers(40, 160)),
            slo_class=CLASSES[draw.integers(len(CLASSES))].name,
        )
        for i, at in enumerate(arrivals)
    )


def routed(items: tuple[TraceItem, ...]) -> tuple[TraceItem, ...]:
    """Each item with the model that the router takes for it."""
    found = []
    for item in items:
        request = Request(
            id=item.id,
            model="auto",
            text="x" * (4 * item.prompt_tokens),
            context=RunContext(objective=item.objective or Objective(), data_label=item.data_label),
        )
        state = RouterInput(request=request, candidates=MODELS, default="small", now_s=item.arrival_s)
        found.append(dataclasses.replace(item, model=ByObjective().route(state)[0]))
    return tuple(found)


def kept(record: RequestRecord, quality: Mapping[str, float | None]) -> bool:
    """Whether a request got all that its class promises, whatever it carried."""
    each = next(each for each in CLASSES if each.name == record.item.slo_class)
    judged = dataclasses.replace(record.item, objective=each.objective)
    met = dataclasses.replace(record, item=judged).meets(each.objective)
    good = (quality[record.model] or 0.0) >= (each.quality or 0.0)
    at_home = each.data_label != "local" or not record.engine.startswith("cloud")
    return met and good and at_home


def shares(items: tuple[TraceItem, ...], policies: Policies) -> dict[str, float]:
    """Per class, the share of its requests that got what it promises."""
    options = SimulationOptions(limits=EngineLimits(max_batch_tokens=512, max_sequences=16, max_waiting=9999))
    records = simulate_fleet(items, fleets(), policies, options=options).total.records
    quality = {name: each.quality for name, each in MODELS.items()}
    found = {
        each.name: [kept(r, quality) for r in records if r.item.slo_class == each.name] for each in CLASSES
    }
    return {name: sum(each) / len(each) for name, each in found.items()}


@pytest.mark.row(ROW, "effect", claims=(1,))
@pytest.mark.parametrize("seed", [11, 12])
def test_four_classes_at_once_each_get_what_they_are_promised(seed: int, measured: Measure) -> None:
    """Two unseen seeds. Without classes nobody knows whom which model and place suits: the same load, all of
    it on either model, at the fastest place, by arrival.
    """
    items = load(160, 40.0, seed)
    promised = Policies.of(scheduler="classes", offload="objective")
    found = shares(routed(in_classes(items, CLASSES)), promised)
    blind = {
        model: shares(
            tuple(dataclasses.replace(item, model=model) for item in items),
            Policies.of(scheduler="sarathi", offload="fastest"),
        )
        for model in MODELS
    }
    print(f"\nshare that got what its class promises: {found}; without classes: {blind}")
    for name, share in found.items():
        measured(f"{name}: share that got what it was promised", share, at_least=0.95)
    for model, each in blind.items():
        measured(f"worst class without classes, all on {model}", min(each.values()), at_most=0.9)


def test_private_requests_stay_at_home_even_where_that_breaks_their_deadline() -> None:
    items = [dataclasses.replace(item, slo_class="private") for item in load(60, 200.0, seed=5)]
    hasty = dataclasses.replace(CLASSES[3], deadline_s=0.5)
    asked = routed(in_classes(items, (hasty,)))
    policies = Policies.of(scheduler="classes", offload="objective")
    records = simulate_fleet(asked, fleets(), policies).total.records
    assert {record.engine for record in records} <= {"own-1", "own-2", "own-3"}
    assert not all(record.meets(Objective()) for record in records)
