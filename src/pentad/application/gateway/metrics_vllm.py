"""Our metrics under vLLM's names, for dashboards and autoscalers that were made for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """One of our families, or the part of it that has certain labels, under another name."""

    ours: str
    theirs: str
    where: Mapping[str, str] = field(default_factory=dict)
    """Labels that a sample must have; they are left out."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Our label to theirs."""


def _phase(name: str, theirs: str) -> Alias:
    return Alias(ours="pentad_phase_seconds", theirs=theirs, where={"phase": name})


ALIASES: tuple[Alias, ...] = (
    Alias(ours="pentad_engine_running", theirs="vllm:num_requests_running"),
    Alias(ours="pentad_engine_waiting", theirs="vllm:num_requests_waiting"),
    Alias(ours="pentad_engine_kv_usage_fraction", theirs="vllm:kv_cache_usage_perc"),
    Alias(ours="pentad_engine_prefix_query_tokens", theirs="vllm:prefix_cache_queries"),
    Alias(ours="pentad_engine_prefix_hit_tokens", theirs="vllm:prefix_cache_hits"),
    Alias(ours="pentad_engine_preemptions", theirs="vllm:num_preemptions"),
    Alias(ours="pentad_prompt_tokens", theirs="vllm:prompt_tokens"),
    Alias(ours="pentad_completion_tokens", theirs="vllm:generation_tokens"),
    Alias(ours="pentad_requests", theirs="vllm:request_success", rename={"outcome": "finished_reason"}),
    Alias(ours="pentad_time_to_first_token_seconds", theirs="vllm:time_to_first_token_seconds"),
    Alias(ours="pentad_inter_token_seconds", theirs="vllm:inter_token_latency_seconds"),
    Alias(ours="pentad_inter_token_seconds", theirs="vllm:time_per_output_token_seconds"),
    Alias(ours="pentad_request_seconds", theirs="vllm:e2e_request_latency_seconds"),
    Alias(ours="pentad_request_prompt_tokens", theirs="vllm:request_prompt_tokens"),
    Alias(ours="pentad_request_completion_tokens", theirs="vllm:request_generation_tokens"),
    _phase("queue", "vllm:request_queue_time_seconds"),
    _phase("prefill", "vllm:request_prefill_time_seconds"),
    _phase("decode", "vllm:request_decode_time_seconds"),
)
_NO_SUCCESS = ("error", "cancelled")


class VllmAliases(Collector):
    """Copies the samples of a registry, in which it is registered itself, under the other names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._busy = False

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the registry."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The copies. Yields nothing while it is reading the registry itself."""
        if self._busy:
            return
        self._busy = True
        try:
            families = {family.name: family for family in self._registry.collect()}
        finally:
            self._busy = False
        for alias in ALIASES:
            family = families.get(alias.ours)
            if family is not None:
                yield _copy(family, alias)


def _copy(family: Metric, alias: Alias) -> Metric:
    copy = Metric(alias.theirs, family.documentation, family.type)
    for sample in family.samples:
        if not alias.where.items() <= sample.labels.items() or sample.name.endswith("_created"):
            continue
        if sample.labels.get("outcome") in _NO_SUCCESS:
            continue
        labels = {
            alias.rename.get(name, name): value
            for name, value in sample.labels.items()
            if name not in alias.where and name != "layer"
        }
        name = alias.theirs + sample.name.removeprefix(family.name)
        copy.add_sample(name, {**labels, "engine": "0"}, sample.value)
    return copy
