"""Metrics: what the gateway counts, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pentad.application.gateway.metrics_classes import ClassAttainment
from pentad.application.gateway.metrics_vllm import VllmAliases
from pentad.application.telemetry.sender import SpanSender
from pentad.model.control.alarms import Doubt
from pentad.resource.service_classes import ServiceClass
from pentad.types import Objective, Usage

Stats = Callable[[], Mapping[str, Mapping[str, float]]]
"""Gauges and counters of every model, as ModelService.stats gives them."""

_TTFT_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1, 2)
_REQUEST_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_PHASE_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_OVERHEAD_S = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1)
_COUNTS = (1, 8, 32, 128, 512, 2048, 8192, 32768)


class Metrics:
    """All of one server's metrics; `text` is what /metrics answers."""

    def __init__(self, stats: Stats, *, compat: str = "none", classes: Sequence[ServiceClass] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        add = self.registry
        model = ["model_name"]
        self.ttft = Histogram(
            "pentad_time_to_first_token_seconds",
            "From the request's entry to its first piece of answer.",
            model,
            buckets=_TTFT_S,
            registry=add,
        )
        self.inter_token = Histogram(
            "pentad_inter_token_seconds",
            "Between two pieces of one answer.",
            model,
            buckets=_TOKEN_S,
            registry=add,
        )
        self.request = Histogram(
            "pentad_request_seconds",
            "From the request's entry to the end of its answer.",
            model,
            buckets=_REQUEST_S,
            registry=add,
        )
        self.request_prompt_tokens = Histogram(
            "pentad_request_prompt_tokens", "Prompt tokens per request.", model, buckets=_COUNTS, registry=add
        )
        self.request_completion_tokens = Histogram(
            "pentad_request_completion_tokens",
            "Generated tokens per request.",
            model,
            buckets=_COUNTS,
            registry=add,
        )
        self.prompt_tokens = Counter("pentad_prompt_tokens", "Prompt tokens.", model, registry=add)
        self.cached_tokens = Counter(
            "pentad_cached_tokens", "Prompt tokens taken from the prefix cache.", model, registry=add
        )
        self.completion_tokens = Counter("pentad_completion_tokens", "Generated tokens.", model, registry=add)
        self.energy = Counter(
            "pentad_energy_joules",
            "Energy of this machine that requests used.",
            [*model, "source"],
            registry=add,
        )
        self.phase = Histogram(
            "pentad_phase_seconds",
            "Parts of a request's way: queue, prefill, decode and what surrounds them.",
            [*model, "layer", "phase"],
            buckets=_PHASE_S,
            registry=add,
        )
        self.requests = Counter(
            "pentad_requests", "Ended requests by how they ended.", [*model, "outcome"], registry=add
        )
        self.attainment = Counter(
            "pentad_objectives",
            "Objectives of ended requests by whether they were met.",
            [*model, "objective", "outcome"],
            registry=add,
        )
        self.http = Counter(
            "pentad_http_requests", "HTTP answers.", ["route", "method", "status"], registry=add
        )
        self.overhead = Histogram(
            "pentad_overhead_seconds",
            "Our own time per request, by part; no model time.",
            ["part"],
            buckets=_OVERHEAD_S,
            registry=add,
        )
        self.classes = ClassAttainment(add, classes)
        self._meters: dict[str, Meter] = {}
        self.objectives: dict[str, Objective] = {}
        """By model, the last objective with a latency that a request declared."""
        add.register(_ModelStats(stats))
        if compat == "vllm":
            add.register(VllmAliases(self.registry))

    def generation(self, model: str) -> Meter:
        """The bound children for one model, looked up once."""
        meter = self._meters.get(model)
        if meter is None:
            meter = self._meters[model] = Meter(self, model)
        return meter

    def tell_doubts(self, doubts: Callable[[], Sequence[Doubt]]) -> None:
        """Tells which models' predictions the router does not trust."""
        self.registry.register(_SafeMode(doubts))

    def count_spans(self, sender: SpanSender) -> None:
        """Tells of spans that were sent to a collector, and of those that were not."""
        self.registry.register(_SpanCounts(sender))

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)


class Meter:
    """One model's metrics; every call costs about a microsecond."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self.first_token = metrics.ttft.labels(model).observe
        self.inter_token = metrics.inter_token.labels(model).observe

    def usage(self, usage: Usage) -> None:
        """Counts the tokens of one finished request."""
        metrics, model = self._metrics, self._model
        metrics.prompt_tokens.labels(model).inc(usage.prompt_tokens)
        metrics.cached_tokens.labels(model).inc(usage.cached_tokens)
        metrics.completion_tokens.labels(model).inc(usage.completion_tokens)
        metrics.request_prompt_tokens.labels(model).observe(usage.prompt_tokens)
        metrics.request_completion_tokens.labels(model).observe(usage.completion_tokens)
        if usage.energy is not None:
            metrics.energy.labels(model, usage.energy.source).inc(usage.energy.joules)
        for span in usage.spans:
            metrics.phase.labels(model, span.layer, span.name).observe(span.end_s - span.start_s)

    def attained(self, met: Mapping[str, bool]) -> None:
        """Counts the objectives of one ended request."""
        for name, kept in met.items():
            self._metrics.attainment.labels(self._model, name, "met" if kept else "missed").inc()

    def done(self, outcome: str, seconds: float) -> None:
        """Counts one ended request."""
        self._metrics.requests.labels(self._model, outcome).inc()
        self._metrics.request.labels(self._model).observe(seconds)


class _SpanCounts(Collector):
    """What became of the spans of traces."""

    def __init__(self, sender: SpanSender) -> None:
        self._sender = sender

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        name = "pentad_telemetry_spans"
        family = CounterMetricFamily(name, "Spans by what became of them.", labels=["outcome"])
        family.add_metric(["sent"], self._sender.sent)
        family.add_metric(["dropped"], self._sender.dropped)
        yield family


class _SafeMode(Collector):
    """Which models' predictions are not trusted now, read when someone scrapes."""

    def __init__(self, doubts: Callable[[], Sequence[Doubt]]) -> None:
        self._doubts = doubts

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        told = "1 while predictions of the model are not trusted, by cause; the router is in its safe mode."
        family = GaugeMetricFamily("pentad_router_safe_mode", told, labels=["model_name", "cause"])
        for doubt in self._doubts():
            family.add_metric([doubt.model, doubt.cause], 1.0)
        yield family


class _ModelStats(Collector):
    """The backends' own gauges, read when someone scrapes: `pentad_engine_<name>{model_name}`."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for model, values in self._stats().items():
            for key, value in values.items():
                family = families.get(key)
                if family is None:
                    counts = key.endswith("_total")
                    kind = CounterMetricFamily if counts else GaugeMetricFamily
                    name = f"pentad_engine_{key.removesuffix('_total')}"
                    family = families[key] = kind(name, f"{key} of the backend", labels=["model_name"])
                family.add_metric([model], value)  # type: ignore[attr-defined]
        yield from families.values()
