"""How the service classes are kept: attainment, and what is left of each error budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pentad.application.gateway.schemas.operations import ClassReport
from pentad.resource.service_classes import ServiceClass


class ClassAttainment(Collector):
    """Counts ended requests of each class by whether all their promises were kept.

    The error budget is the share of requests that may miss, 1 - target. What is left of it is 1 while none
    has missed, 0 when as many have as may, and below 0 after that.
    """

    def __init__(self, registry: CollectorRegistry, classes: Sequence[ServiceClass]) -> None:
        self._targets = {each.name: each.target for each in classes}
        self._counts = {each.name: [0, 0] for each in classes}
        registry.register(self)

    def count(self, name: str, *, kept: bool) -> None:
        """Counts one ended request of a class."""
        self._counts[name][kept] += 1

    def report(self) -> list[ClassReport]:
        """Each class as it stands."""
        return [
            ClassReport(
                name=name,
                target=self._targets[name],
                kept=kept,
                missed=missed,
                attainment=kept / (kept + missed) if kept + missed else None,
                error_budget_left=_left(self._targets[name], kept, missed),
            )
            for name, (missed, kept) in self._counts.items()
        ]

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "pentad_class_requests", "Ended requests of service classes.", labels=["slo_class", "outcome"]
        )
        attainment = GaugeMetricFamily(
            "pentad_class_attainment", "Share of requests that were kept all promises.", labels=["slo_class"]
        )
        budget = GaugeMetricFamily(
            "pentad_class_error_budget_left", "Share of the error budget that is left.", labels=["slo_class"]
        )
        for each in self.report():
            requests.add_metric([each.name, "kept"], each.kept)
            requests.add_metric([each.name, "missed"], each.missed)
            if each.attainment is not None:
                attainment.add_metric([each.name], each.attainment)
            budget.add_metric([each.name], each.error_budget_left)
        yield from (requests, attainment, budget)


def _left(target: float, kept: int, missed: int) -> float:
    allowed = (1.0 - target) * (kept + missed)
    if not missed:
        return 1.0
    return 1.0 - missed / allowed if allowed > 0 else -float(missed)
