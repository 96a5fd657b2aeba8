"""Metering: instants and counts of every generation, on their way past."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from pentad.application.gateway.metrics import Metrics
from pentad.execution.backend import ChoiceDone, Delta, NoticeDelta, PromptDelta, StreamDone
from pentad.model.objectives import LIMIT
from pentad.types import Clock, Objective, Usage


@dataclass(slots=True)
class Attainment:
    """Whether one answer keeps what its objective wishes; one that failed or was cut misses its deadline."""

    objective: Objective
    first_s: float | None = None
    _gaps: int = 0
    _gaps_s: float = 0.0
    _ended: tuple[Usage, float] | None = None

    def gap(self, seconds: float) -> None:
        """Notes the time between two pieces."""
        self._gaps += 1
        self._gaps_s += seconds

    def ended(self, usage: Usage, seconds: float) -> None:
        """Notes the whole answer."""
        self._ended = (usage, seconds)

    def met(self) -> dict[str, bool]:
        """Each objective that was given, and whether it was met; inter-token times on the average."""
        aim, ended = self.objective, self._ended
        cut = ended is not None and any(d.subject == LIMIT for d in ended[0].decisions)
        found: dict[str, bool] = {}
        if aim.ttft_s is not None:
            found["ttft"] = self.first_s is not None and self.first_s <= aim.ttft_s
        if aim.inter_token_s is not None:
            found["inter_token"] = ended is not None and self._gaps_s <= aim.inter_token_s * self._gaps
        if aim.deadline_s is not None:
            found["deadline"] = ended is not None and not cut and ended[1] <= aim.deadline_s
        if aim.max_cost is not None:
            found["cost"] = ended is not None and not cut and ended[0].cost <= aim.max_cost
        energy = None if ended is None else ended[0].energy
        if aim.max_energy_j is not None and energy is not None:
            found["energy"] = not cut and energy.joules <= aim.max_energy_j
        return found


@dataclass(slots=True)
class Pulse:
    """When models last produced a token, for /health."""

    last_s: dict[str, float] = field(default_factory=dict)


async def metered(
    deltas: AsyncGenerator[Delta, None],
    objective: Objective,
    model: str,
    *,
    metrics: Metrics,
    pulse: Pulse,
    clock: Clock,
    tell_energy: bool = False,
    slo_class: str | None = None,
) -> AsyncGenerator[Delta, None]:
    """The same deltas, but that energy is told only where it is asked for.

    Times run from the first call, on one clock; objectives are met or missed by them.
    """
    started_s = clock()
    meter = metrics.generation(model)
    before: dict[int, float] = {}
    attainment = Attainment(objective)
    outcome = "error"
    try:
        async with aclosing(deltas) as stream:
            async for delta in stream:
                now = clock()
                if isinstance(delta, StreamDone):
                    meter.usage(delta.usage)
                    attainment.ended(delta.usage, now - started_s)
                    if delta.usage.energy is not None and not tell_energy:
                        delta = StreamDone(usage=replace(delta.usage, energy=None))
                elif not isinstance(delta, (NoticeDelta, PromptDelta)):
                    pulse.last_s[model] = now
                    if not before:
                        meter.first_token(now - started_s)
                        attainment.first_s = now - started_s
                    previous = before.get(delta.choice)
                    if isinstance(delta, ChoiceDone):
                        outcome = delta.reason
                    elif previous is not None:
                        meter.inter_token(now - previous)
                        attainment.gap(now - previous)
                    before[delta.choice] = now
                yield delta
    except GeneratorExit:
        outcome = "cancelled"
        raise
    except BaseException as error:
        outcome = "error" if isinstance(error, Exception) else "cancelled"
        raise
    finally:
        meter.done(outcome, clock() - started_s)
        if outcome != "cancelled":
            met = attainment.met()
            meter.attained(met)
            if slo_class is not None and met:
                metrics.classes.count(slo_class, kept=all(met.values()))
