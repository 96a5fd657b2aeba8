"""What a replay showed. Request instants are defined once here; every metric is a formula over them.

    arrived ---- waiting ----> first token --gap--> token --gap--> ... --> finished
       |<------- ttft -------->|
       |<--------------------------- completion ------------------------------>|

The same records and formulas serve live replays, so live and simulated numbers mean the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pentad.resource.simulator.trace import TraceItem
from pentad.types import Decision, Objective

NO_OBJECTIVE: Final = Objective()


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request's instants, in seconds on one clock, and counts. Filled in while it runs."""

    item: TraceItem
    arrived_s: float
    token_times_s: list[float] = field(default_factory=list)
    """When each token came out, all tokens of a step at its end."""
    tokens: list[int] = field(default_factory=list)
    finished_s: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    refusal: str | None = None
    """Why the engine did not take or complete it, as the error's stable code."""
    clipped_tokens: int = 0
    """Prompt and output tokens cut off so that it fits the context."""
    model: str = ""
    """Which model of a simulated world answers it."""
    engine: str = ""
    """Which engine of a simulated world it was given to."""
    prefilled_by: str = ""
    """Which engine computed its prompt, where another one answers."""
    back_s: float = 0.0
    """What each token takes from there to who asked."""
    cost: float = 0.0
    """Money, where engines have prices."""
    run_began_s: float | None = None
    """When its run's first request arrived."""
    decisions: tuple[Decision, ...] = ()
    """Of the policies that chose the engine."""
    prompt_waits: bool = False
    """Whether its engine has still to compute its prompt."""
    held_s: float | None = None
    """Since when it waits for any engine of its model to be up."""
    cold_wait_s: float = 0.0
    """How long it has waited for that."""
    moves: int = 0
    """How often its engine was lost and another took it."""
    recomputed_tokens: int = 0
    """Of prompt and answer that were computed on engines that were lost."""

    @property
    def completed(self) -> bool:
        return self.finished_s is not None and self.refusal is None

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] - self.arrived_s

    @property
    def completion_s(self) -> float:
        assert self.finished_s is not None, f"request {self.item.id!r} has not finished"
        return self.finished_s - self.arrived_s

    @property
    def gaps_s(self) -> list[float]:
        """Times between consecutive tokens."""
        return [later - earlier for earlier, later in itertools.pairwise(self.token_times_s)]

    def meets(self, objective: Objective) -> bool:
        """Whether it completed within every latency asked for, inter-token as the request's mean, and the
        cost. Its own objective counts before the one given here."""
        objective = self.item.objective or objective
        if not self.completed:
            return False
        if objective == NO_OBJECTIVE:
            return True
        gaps = () if objective.inter_token_s is None else self.gaps_s
        checks = (
            (self.ttft_s, objective.ttft_s),
            (sum(gaps) / len(gaps) if gaps else 0.0, objective.inter_token_s),
            (self.completion_s, objective.deadline_s),
            (self.cost, objective.max_cost),
        )
        return all(limit is None or value <= limit for value, limit in checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Quantiles of a duration, in seconds; linear between order statistics. 0 when there are none."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    mean: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float] | npt.NDArray[np.float64]) -> Distribution:
        if not len(values):
            return cls()
        p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99))
        return cls(
            p50=float(p50),
            p95=float(p95),
            p99=float(p99),
            mean=float(np.mean(values)),
            largest=float(np.max(values)),
        )

    def to_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("p50", "p95", "p99", "mean", "largest")}


def run_seconds(records: Iterable[RequestRecord]) -> dict[str, float]:
    """Seconds that each run took, sub-agents included; runs with a step that failed are not there."""
    steps: dict[str, list[RequestRecord]] = {}
    for record in records:
        name = record.item.root or record.item.run
        if name is not None:
            steps.setdefault(name, []).append(record)
    return {
        name: max(one.arrived_s + one.completion_s for one in own) - min(one.arrived_s for one in own)
        for name, own in steps.items()
        if all(one.completed for one in own)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """A replay's records and what they add up to."""

    scheduler: str
    device: str
    model: str
    objective: Objective
    records: tuple[RequestRecord, ...]
    busy_s: float
    """Time spent in engine steps."""
    steps: int
    computed_tokens: int
    """Tokens that went through the model, recomputed ones included."""

    @property
    def completed(self) -> list[RequestRecord]:
        return [record for record in self.records if record.completed]

    @property
    def span_s(self) -> float:
        """From the first arrival to the last token."""
        ends = [record.finished_s for record in self.records if record.finished_s is not None]
        return max(ends) - min(record.arrived_s for record in self.records) if ends else 0.0

    @property
    def ttft(self) -> Distribution:
        return Distribution.of([record.ttft_s for record in self.completed])

    @property
    def inter_token(self) -> Distribution:
        """Over all gaps of all requests, so a stall counts once per sequence that felt it."""
        times = [np.array(record.token_times_s) for record in self.completed]
        return Distribution.of(np.concatenate([np.diff(own) for own in times]) if times else ())

    @property
    def completion(self) -> Distribution:
        return Distribution.of([record.completion_s for record in self.completed])

    @property
    def run_seconds(self) -> dict[str, float]:
        """Per agent run whose steps all completed, sub-agents included: from its first arrival to its last
        token."""
        return run_seconds(self.records)

    @property
    def run_completion(self) -> Distribution:
        return Distribution.of(list(self.run_seconds.values()))

    @property
    def missed_tokens(self) -> int:
        """Prompt tokens that the cache did not supply."""
        return sum(record.item.prompt_tokens - record.cached_tokens for record in self.completed)

    @property
    def generated_tokens(self) -> int:
        return sum(len(record.token_times_s) for record in self.records)

    @property
    def throughput_tokens_per_s(self) -> float:
        """Generated tokens per second of the span."""
        return self.generated_tokens / self.span_s if self.span_s else 0.0

    @property
    def goodput_per_s(self) -> float:
        """Requests per second of the span that met the objective."""
        met = sum(record.meets(self.objective) for record in self.records)
        return met / self.span_s if self.span_s else 0.0

    @property
    def attainment(self) -> float:
        """Share of all requests, refused ones included, that met the objective."""
        met = sum(record.meets(self.objective) for record in self.records)
        return met / len(self.records) if self.records else 0.0

    @property
    def classes(self) -> dict[str, float]:
        """Per class of requests that the trace names, the share that met its own objective."""
        met: dict[str, list[bool]] = {}
        for record in self.records:
            if record.item.slo_class:
                met.setdefault(record.item.slo_class, []).append(record.meets(self.objective))
        return {name: sum(each) / len(each) for name, each in sorted(met.items())}

    @property
    def utilisation(self) -> float:
        """Share of the span spent in steps."""
        return self.busy_s / self.span_s if self.span_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The metrics as plain data for JSON, without the records."""
        refusals: dict[str, int] = {}
        for record in self.records:
            if record.refusal is not None:
                refusals[record.refusal] = refusals.get(record.refusal, 0) + 1
        return {
            "scheduler": self.scheduler,
            "device": self.device,
            "model": self.model,
            "requests": len(self.records),
            "completed": len(self.completed),
            "refused": refusals,
            "clipped_requests": sum(record.clipped_tokens > 0 for record in self.records),
            "clipped_tokens": sum(record.clipped_tokens for record in self.records),
            "span_s": self.span_s,
            "ttft_s": self.ttft.to_dict(),
            "inter_token_s": self.inter_token.to_dict(),
            "completion_s": self.completion.to_dict(),
            "run_completion_s": self.run_completion.to_dict(),
            "generated_tokens": self.generated_tokens,
            "throughput_tokens_per_s": self.throughput_tokens_per_s,
            "goodput_per_s": self.goodput_per_s,
            "attainment": self.attainment,
            "classes": self.classes,
            "utilisation": self.utilisation,
            "steps": self.steps,
            "computed_tokens": self.computed_tokens,
            "missed_tokens": self.missed_tokens,
            "cached_tokens": sum(record.cached_tokens for record in self.records),
            "preemptions": sum(record.preemptions for record in self.records),
            "moved_requests": sum(record.moves > 0 for record in self.records),
            "recomputed_tokens": sum(record.recomputed_tokens for record in self.records),
        }
