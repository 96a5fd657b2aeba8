"""Energy that this machine has used: from the counters that Linux shows, else from a model of its power."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Protocol

import psutil

from pentad.execution.device import DeviceProfile
from pentad.resource.power import PowerModel
from pentad.types import Clock, EnergySource

_COUNTERS = pathlib.Path("/sys/class/powercap")
_RANGE = "max_energy_range_uj"
_SHORTEST_S = 0.02
"""Readings that lie nearer together are taken as one: a counter is renewed about every millisecond."""


class EnergyMeter(Protocol):
    """Counts the energy of a machine."""

    @property
    def source(self) -> EnergySource: ...

    @property
    def basis(self) -> str:
        """What the joules rest on, in words."""
        ...

    def joules(self) -> float | None:
        """Since this object was made; None where nothing can be read."""
        ...


class PackageEnergy:
    """Sums the RAPL counters of all processor packages, over their wrapping round.

    Intel and AMD processors count the energy of whole packages, cores and caches; memory, disks and graphics
    cards are not in it. On many machines only root may read the counters: then there is no reading, and
    `refusal` says so.

    Args:
        folder: where the counters are.
    """

    source: EnergySource = "measured"
    basis = "RAPL counters of the processor packages"

    def __init__(self, folder: pathlib.Path = _COUNTERS) -> None:
        self._folder = folder
        self._files = sorted(folder.glob("intel-rapl:[0-9]*")) if folder.is_dir() else []
        self._files = [path for path in self._files if path.name.count(":") == 1]
        self._last = [self._read(path / "energy_uj") for path in self._files]
        self._joules = 0.0

    def joules(self) -> float | None:
        """Since this object was made; None where no counter can be read."""
        if not self._files or None in self._last:
            return None
        for place, path in enumerate(self._files):
            now, before = self._read(path / "energy_uj"), self._last[place]
            if now is None or before is None:
                return None
            # A counter wraps round at its own range, every few minutes to hours.
            gone = now - before if now >= before else now - before + (self._read(path / _RANGE) or 0)
            self._joules += max(0, gone) / 1e6
            self._last[place] = now
        return self._joules

    @property
    def refusal(self) -> tuple[str, str | None] | None:
        """Why there is no reading and what helps, if anything does; None where there is one."""
        if not self._files:
            return f"{self._folder} shows no energy counters", None
        for path in self._files:
            file = path / "energy_uj"
            try:
                int(file.read_text())
            except PermissionError:
                return (
                    f"{file} may be read by root alone",
                    f"sudo chmod a+r {self._folder}/intel-rapl:*/energy_uj",
                )
            except (OSError, ValueError) as error:
                return f"{file} cannot be read: {error}", None
        return None

    @staticmethod
    def _read(path: pathlib.Path) -> int | None:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            return None


class ModelledEnergy:
    """Energy by a model of power and by how busy all processors of the machine were.

    Args:
        model: power by utilisation.
        clock: monotonic.
        busy: seconds that processors computed and seconds that they could have, since any instant.
    """

    source: EnergySource = "modelled"

    def __init__(
        self,
        model: PowerModel,
        *,
        clock: Clock = time.monotonic,
        busy: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.model = model
        self._clock = clock
        self._busy = busy or machine_busy_s
        self._at_s, self._last = clock(), self._busy()
        self._joules = 0.0

    @property
    def basis(self) -> str:
        return self.model.basis

    def joules(self) -> float:
        """Since this object was made."""
        now_s = self._clock()
        if now_s - self._at_s >= _SHORTEST_S:
            busy_s, able_s = self._busy()
            spent, could = busy_s - self._last[0], able_s - self._last[1]
            share = min(1.0, max(0.0, spent / could)) if could > 0 else 0.0
            self._joules += self.model.watts(share) * (now_s - self._at_s)
            self._at_s, self._last = now_s, (busy_s, able_s)
        return self._joules


def machine_busy_s() -> tuple[float, float]:
    """Seconds that all processors computed, and seconds that they could have, since the machine started."""
    times = psutil.cpu_times()
    able = sum(times[: 8 if len(times) > 8 else len(times)])  # guests are counted as user already
    return able - times.idle - getattr(times, "iowait", 0.0), able


def machine_meter(profile: DeviceProfile | None = None, *, folder: pathlib.Path = _COUNTERS) -> EnergyMeter:
    """The counters where they can be read, else a model of this machine's power.

    Args:
        profile: this machine's own; its `power_w` and `idle_w` are taken where it has them.
        folder: where the counters are.
    """
    counters = PackageEnergy(folder)
    return counters if counters.joules() is not None else ModelledEnergy(PowerModel.of(profile))
