"""What a simulated fleet did: each engine's part and the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    @property
    def cost(self) -> float:
        """Money for all devices while they were held."""
        return sum(engine.cost for engine in self.engines)

    def to_dict(self) -> dict[str, Any]:
        """The metrics as plain data for JSON, without the records."""
        return self.total.to_dict() | {
            "offload": self.offload,
            "scaler": self.scaler,
            "cold_starts": self.cold_starts,
            "scaling": [
                {"at_s": d.at_s, "subject": d.subject, "chosen": d.chosen, "constraint": d.constraint}
                | dict(d.candidates)
                for d in self.scaling
            ],
            "up_s": sum(engine.up_s for engine in self.engines),
            "sent_bytes": self.sent_bytes,
            "cost": self.cost,
            "energy_j": sum(engine.energy_j for engine in self.engines),
            "engines": [engine.to_dict() for engine in self.engines],
        }


def engine_report(engine: SimulatedEngine, total: SimulationReport) -> EngineReport:
    """An engine's part of a load that is over."""
    records = tuple(record for record in total.records if record.engine == engine.name)
    ends = [record.finished_s for record in total.records if record.finished_s is not None]
    up_s = engine.up_s(max(ends, default=0.0))
    return EngineReport(
        name=engine.name,
        devices=engine.devices,
        given=engine.served,
        up_s=up_s,
        cost=up_s * engine.price_per_s,
        energy_j=up_s * engine.power_w,
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
