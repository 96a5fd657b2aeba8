"""Energy that this machine's processors have used, from the counters that Linux shows."""

from __future__ import annotations

import pathlib

_COUNTERS = pathlib.Path("/sys/class/powercap")
_RANGE = "max_energy_range_uj"


class PackageEnergy:
    """Sums the RAPL counters of all processor packages, over their wrapping round.

    Intel and AMD processors count the energy of whole packages, cores and caches; memory, disks and graphics
    cards are not in it. On many machines only root may read the counters: then there is no reading.

    Args:
        folder: where the counters are.
    """

    def __init__(self, folder: pathlib.Path = _COUNTERS) -> None:
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

    @staticmethod
    def _read(path: pathlib.Path) -> int | None:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            return None
