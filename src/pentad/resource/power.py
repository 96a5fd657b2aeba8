"""Power of a device by how busy it is: idle power, and what utilisation adds in proportion.

Such a line predicts the power of servers within a few percent (Fan et al., Power provisioning for a
warehouse-sized computer, ISCA'07, section 4), and is what RAPL-less machines are charged by here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pentad.errors import InvalidRequest
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range

ASSUMED_CORE_W = 6.0
"""Rated power of a server's core where nothing is known: 350 W of 56 cores of a Xeon 8480+."""
ASSUMED_IDLE_FRACTION = 0.3
"""Of the rated power, what an idle device takes where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Watts = idle_w + utilisation * (full_w - idle_w)."""

    idle_w: float
    full_w: float
    basis: str
    """What both numbers rest on, in words."""

    def __post_init__(self) -> None:
        in_range("idle_w", self.idle_w, least=0)
        in_range("full_w", self.full_w, above=0)
        if self.idle_w > self.full_w:
            raise InvalidRequest(
                f"idle_w of {self.idle_w:g} exceeds the power under load of {self.full_w:g}",
                hint="give the power of the idle device as idle_w and that of the busy one as power_w",
                param="idle_w",
            )

    def watts(self, utilisation: float) -> float:
        """Power at a utilisation from 0 to 1."""
        return self.idle_w + min(1.0, max(0.0, utilisation)) * (self.full_w - self.idle_w)

    @classmethod
    def of(cls, profile: DeviceProfile | None, *, cores: int | None = None) -> Self:
        """The model of a device; of a processor of unknown power, by its cores.

        Raises:
            InvalidRequest: the profile's idle power exceeds its rated power.
        """
        if profile is not None and profile.power_w is not None:
            idle = profile.idle_w
            told = f"{profile.power_w:g} W rated" + (f", {idle:g} W idle" if idle is not None else "")
            if idle is None:
                told += f", {ASSUMED_IDLE_FRACTION:.0%} of it idle (assumed)"
                idle = ASSUMED_IDLE_FRACTION * profile.power_w
            return cls(idle_w=idle, full_w=profile.power_w, basis=told)
        count = cores or (profile.cores if profile is not None else None) or os.cpu_count() or 1
        full = count * ASSUMED_CORE_W
        return cls(
            idle_w=ASSUMED_IDLE_FRACTION * full,
            full_w=full,
            basis=f"{count} cores of {ASSUMED_CORE_W:g} W, {ASSUMED_IDLE_FRACTION:.0%} of it idle (assumed)",
        )

    @classmethod
    def calibrated(cls, samples: Sequence[tuple[float, float]]) -> Self:
        """The line of least squares through measured (utilisation, watts).

        Raises:
            InvalidRequest: fewer than two different utilisations, or power that falls with load.
        """
        if len({round(utilisation, 3) for utilisation, _ in samples}) < 2:
            raise InvalidRequest(
                "power at one utilisation alone makes no model",
                hint="measure the idle machine and the busy one",
                param="samples",
            )
        count = len(samples)
        mean_u = sum(u for u, _ in samples) / count
        mean_w = sum(w for _, w in samples) / count
        slope = sum((u - mean_u) * (w - mean_w) for u, w in samples) / sum(
            (u - mean_u) ** 2 for u, _ in samples
        )
        idle = mean_w - slope * mean_u
        if slope < 0:
            raise InvalidRequest(
                "the measured power falls with the load",
                hint="measure again on a quiet machine",
                param="samples",
            )
        return cls(idle_w=max(0.0, idle), full_w=idle + slope, basis=f"fitted to {count} measured powers")
