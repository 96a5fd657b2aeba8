"""What the served models are doing, for the console's engine page and `pentad ps`."""

from __future__ import annotations

import itertools

from prometheus_client import Histogram

import pentad
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.schemas.operations import Buckets, EngineModel, EngineReport, Targets
from pentad.application.services import Services
from pentad.types import Objective


def engine_report(gateway: Gateway, tenant: str) -> EngineReport:
    """Every model with its gauges, counters and latencies. Reads counters only; starts no work."""
    services, metrics = gateway.services, gateway.metrics
    stats, local = services.models.stats(), services.local
    ttft, inter_token = _by_model(metrics.ttft), _by_model(metrics.inter_token)
    return EngineReport(
        version=pentad.__version__,
        tenant=tenant,
        at_s=services.clock(),
        default=services.models.default,
        trouble=services.models.check(),
        safe_mode=[doubt.why for doubt in services.models.doubts()],
        agents=services.agents is not None,
        memory_bytes=None if local is None else local.pool.budget_bytes,
        memory_booked_bytes=None if local is None else local.pool.booked_bytes,
        classes=metrics.classes.report(),
        models=[
            EngineModel(
                name=card.name,
                kind=card.kind,
                context_length=card.context_length,
                remote=card.capabilities.remote if card.capabilities else False,
                state=card.state,
                memory_bytes=_memory_bytes(services, card.name),
                progress=services.models.served.progress(card.name),
                stats=stats.get(card.name, {}),
                ttft=ttft.get(card.name),
                inter_token=inter_token.get(card.name),
                targets=_targets(metrics.objectives.get(card.name, Objective())),
            )
            for card in services.models.models()
        ],
    )


def _memory_bytes(services: Services, name: str) -> int | None:
    slot = services.models.served.slot(name)
    return None if slot is None else slot.need.total_bytes


def _targets(objective: Objective) -> Targets:
    return Targets(ttft_s=objective.ttft_s, inter_token_s=objective.inter_token_s)


def _by_model(histogram: Histogram) -> dict[str, Buckets]:
    """The histogram's children by `model_name`; Prometheus' cumulative counts become counts per bucket."""
    ends: dict[str, list[tuple[float, float]]] = {}
    sums: dict[str, float] = {}
    for sample in itertools.chain.from_iterable(family.samples for family in histogram.collect()):
        model = sample.labels["model_name"]
        if sample.name.endswith("_bucket"):
            ends.setdefault(model, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[model] = sample.value
    return {model: _buckets(sorted(pairs), sums.get(model, 0.0)) for model, pairs in ends.items()}


def _buckets(ends: list[tuple[float, float]], sum_s: float) -> Buckets:
    totals = [total for _, total in ends]
    counts = [int(total - before) for before, total in zip([0.0, *totals], totals, strict=False)]
    return Buckets(bounds_s=[end for end, _ in ends[:-1]], counts=counts, sum_s=sum_s)
