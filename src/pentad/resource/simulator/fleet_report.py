"""What a simulated fleet did: each engine's part and the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.resource.scaling.base import Host
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.report import SimulationReport
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """One engine's part of a load."""

    name: str
    devices: tuple[str, ...]
    given: int
    """Requests that it was given."""
    up_s: float
    """Time that its devices were held."""
    cost: float
    """Money of its devices for that time; 0 where none has a price."""
    energy_j: float
    """At rated power for that time; 0 where none is known."""
    memory_bytes: float
    """Of its weights and KV blocks."""
    report: SimulationReport
    """Of the requests that it was given."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        own = self.report.to_dict()
        shown = (
            "completed",
            "ttft_s",
            "inter_token_s",
            "completion_s",
            "throughput_tokens_per_s",
            "attainment",
        )
        return {
            "name": self.name,
            "devices": list(self.devices),
            "requests": self.given,
            **{key: own[key] for key in shown},
            "utilisation": self.utilisation,
            "steps": own["steps"],
            "up_s": self.up_s,
            "cost": self.cost,
            "energy_j": self.energy_j,
            "memory_bytes": self.memory_bytes,
        }

    @property
    def utilisation(self) -> float:
        """Share of its time that it spent in steps."""
        return self.report.busy_s / self.up_s if self.up_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """All requests together, and engine by engine."""

    total: SimulationReport
    """`utilisation` is the mean over the engines."""
    offload: str
    scaler: str
    scaling: tuple[Decision, ...]
    """What the scaler changed, in order."""
    cold_starts: int
    engines: tuple[EngineReport, ...]
    sent_bytes: int
    """Prompts that went over links."""
    host_cost: float = 0.0
    """Money of rented machines while anything of them was up, beside their devices."""
    wasted_starts: int = 0
    """Of the cold starts, those of engines that were stopped before they were given anything."""
    moved_bytes: int = 0
    """Keys and values that went from engines that compute prompts to those that answer."""

    @property
    def cost(self) -> float:
        """Money for all devices while they were held, and for the machines around them."""
        return sum(engine.cost for engine in self.engines) + self.host_cost

    def to_dict(self) -> dict[str, Any]:
        """The metrics as plain data for JSON, without the records."""
        return self.total.to_dict() | {
            "offload": self.offload,
            "scaler": self.scaler,
            "cold_starts": self.cold_starts,
            "wasted_starts": self.wasted_starts,
            "cold_wait_s": sum(record.cold_wait_s for record in self.total.records),
            "scaling": [
                {"at_s": d.at_s, "subject": d.subject, "chosen": d.chosen, "constraint": d.constraint}
                | dict(d.candidates)
                for d in self.scaling
            ],
            "up_s": sum(engine.up_s for engine in self.engines),
            "sent_bytes": self.sent_bytes,
            "moved_bytes": self.moved_bytes,
            "cost": self.cost,
            "host_cost": self.host_cost,
            "energy_j": sum(engine.energy_j for engine in self.engines),
            "engines": [engine.to_dict() for engine in self.engines],
        }


def host_cost(
    hosts: Mapping[str, Host], engines: Sequence[SimulatedEngine], total: SimulationReport
) -> float:
    """Money of the machines in `hosts`, each while at least one of its engines was up."""
    end_s = max((r.finished_s for r in total.records if r.finished_s is not None), default=0.0)
    cost = 0.0
    for name, host in hosts.items():
        uses = sorted(use for each in engines if each.host == name for use in each.uses(end_s))
        until_s = 0.0
        for first_s, last_s in uses:
            cost += max(0.0, last_s - max(first_s, until_s)) * host.price_per_s
            until_s = max(until_s, last_s)
    return cost


def engine_report(engine: SimulatedEngine, total: SimulationReport) -> EngineReport:
    """An engine's part of a load that is over."""
    records = tuple(record for record in total.records if engine.name in (record.engine, record.prefilled_by))
    ends = [record.finished_s for record in total.records if record.finished_s is not None]
    up_s = engine.up_s(max(ends, default=0.0))
    return EngineReport(
        name=engine.name,
        devices=engine.devices,
        given=engine.served,
        up_s=up_s,
        cost=up_s * engine.price_per_s,
        energy_j=up_s * engine.power_w,
        memory_bytes=engine.memory_bytes,
        report=SimulationReport(
            scheduler=total.scheduler,
            device="+".join(engine.devices),
            model=total.model,
            objective=total.objective,
            records=records,
            busy_s=engine.runner.busy_s,
            steps=engine.runner.steps,
            computed_tokens=engine.runner.tokens,
        ),
    )
