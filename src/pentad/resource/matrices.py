"""Seconds of one matrix product on a device: interpolated where measured, a roofline elsewhere."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile, MemoryTier

PRECISION_OF_BITS: Mapping[int, tuple[str, ...]] = {
    32: ("f32",),
    16: ("bf16", "f16", "int16"),
    8: ("int8", "fp8"),
    4: ("int4", "fp4"),
}
"""Names in `DeviceProfile.flops_per_s` that may compute on elements of so many bits, best first."""

PUBLISHED_COMPUTE_FRACTION = 0.6
"""Share of a published peak rate that large products are assumed to reach; a profile may have its own under
`reached_compute` in its extra."""
PUBLISHED_BANDWIDTH_FRACTION = 0.8
"""Share of a published peak bandwidth that streaming reads are assumed to reach; or `reached_bandwidth`."""
_POINTS_BYTES = 128 << 20
"""Working set of points that do not name theirs."""
_WIDEST_GAP = 1.9
"""Precisions that differ by more are computed by different kernels; nothing is between them."""
_NEAR_BITS = 1.15
"""Forms whose bits differ by less than this factor are read and computed alike."""


def main_memory(profile: DeviceProfile) -> MemoryTier:
    """The tier that holds weights and KV: the last one that is not a disk."""
    tiers = [tier for tier in profile.memory if tier.name != "disk"]
    if not tiers:
        raise Infeasible(
            f"device {profile.name!r} has no memory in its profile",
            hint="add its main memory, or measure it with pentad profile",
        )
    return tiers[-1]


def usable_bytes(profile: DeviceProfile, fraction: float = 1.0) -> int:
    """Main memory that a model may take: a share of what system and other programs leave."""
    return max(0, int((main_memory(profile).capacity_bytes - profile.reserved_bytes) * fraction))


def read_bytes_per_s(profile: DeviceProfile, working_set_bytes: float) -> float:
    """Read bandwidth for data of that size, read over and over.

    Interpolated on the logarithm of the size where measured, else that of the main memory.
    """
    points = profile.bandwidth_by_working_set
    if not points:
        share = _reached(profile, "reached_bandwidth", PUBLISHED_BANDWIDTH_FRACTION)
        return main_memory(profile).read_bytes_per_s * share
    return _interpolate(
        [math.log(size) for size, _ in points],
        [rate for _, rate in points],
        math.log(max(1.0, working_set_bytes)),
    )


def _reached(profile: DeviceProfile, name: str, assumed: float) -> float:
    """The share of its peak that a published device reaches; other rates are what is reached."""
    return profile.extra.get(name, assumed) if profile.source == "published" else 1.0


def flops_per_s(profile: DeviceProfile, bits: float) -> float:
    """Rate of large products on elements of `bits`; the next wider precision serves where one is absent.

    Raises:
        Infeasible: the profile has no rate at all from this precision upwards.
    """
    share = _reached(profile, "reached_compute", PUBLISHED_COMPUTE_FRACTION) * profile.sustained_fraction
    for width in sorted(PRECISION_OF_BITS):
        for name in PRECISION_OF_BITS[width] if width >= bits else ():
            if name in profile.flops_per_s:
                return profile.flops_per_s[name] * share
    known = ", ".join(sorted(profile.flops_per_s)) or "none"
    raise Infeasible(
        f"device {profile.name!r} has no compute rate for {bits:g}-bit weights (its rates: {known})",
        hint="measure it with pentad profile, or set --weight-bits to a precision that it has",
    )


def widest_bits(profile: DeviceProfile, most: float = 16) -> float:
    """The widest precision of up to `most` bits for which the device has a rate."""
    known = [
        bits for bits, names in PRECISION_OF_BITS.items() if any(n in profile.flops_per_s for n in names)
    ]
    return min(most, max(known, default=most))


@dataclass(frozen=True, slots=True)
class _Curve:
    """log seconds over log rows, for one matrix size."""

    log_rows: list[float]
    log_seconds: list[float]

    def at(self, log_rows: float) -> float:
        """Beyond the last point, time grows in proportion to the rows."""
        beyond = max(0.0, log_rows - self.log_rows[-1])
        return _interpolate(self.log_rows, self.log_seconds, log_rows) + beyond


@dataclass(frozen=True, slots=True)
class _Points:
    """The measured products of one precision, among weights of one size together."""

    log_sizes: list[float]
    curves: list[_Curve]

    @classmethod
    def of(cls, points: Iterable[Mapping[str, float]]) -> _Points:
        groups: dict[float, dict[float, float]] = defaultdict(dict)
        for point in points:
            groups[point["n"] * point["k"]][point["m"]] = math.log(point["seconds"])
        curves = []
        for elements in sorted(groups):
            rows = sorted(groups[elements])
            curves.append(_Curve([math.log(m) for m in rows], [groups[elements][m] for m in rows]))
        return cls([math.log(elements) for elements in sorted(groups)], curves)

    def seconds(self, log_size: float, log_rows: float, proportional: bool) -> float:
        """Interpolated; below the smallest size constant, or in proportion to the size."""
        between = _interpolate(self.log_sizes, [curve.at(log_rows) for curve in self.curves], log_size)
        if proportional:  # the smallest table that serves as head is no launch yet
            between += min(0.0, log_size - self.log_sizes[0])
        return math.exp(between + max(0.0, log_size - self.log_sizes[-1]))


@dataclass(frozen=True, slots=True)
class _Form:
    """The measured products of one precision, by how many bytes of weights they were taken among."""

    log_bytes: list[float]
    points: list[_Points]

    @classmethod
    def of(cls, points: Sequence[Mapping[str, float]]) -> _Form:
        """What was not measured in a working set takes as long as in the largest."""
        groups: dict[float, dict[tuple[float, float, float], Mapping[str, float]]] = defaultdict(dict)
        for point in points:
            groups[point.get("among_bytes", _POINTS_BYTES)][point["m"], point["n"], point["k"]] = point
        largest = groups[max(groups)]
        sizes = sorted(groups)
        return cls(
            [math.log(size) for size in sizes],
            [_Points.of((largest | groups[size]).values()) for size in sizes],
        )

    def seconds(self, among_bytes: float, log_size: float, log_rows: float, proportional: bool) -> float:
        """Interpolated; outside the working sets measured, as in the nearest."""
        found = [math.log(points.seconds(log_size, log_rows, proportional)) for points in self.points]
        return math.exp(_interpolate(self.log_bytes, found, math.log(max(1.0, among_bytes))))

    def nearest_bytes(self, among_bytes: float) -> float:
        """The measured working set that `seconds` of this one rests on."""
        return min(max(among_bytes, math.exp(self.log_bytes[0])), math.exp(self.log_bytes[-1]))


def _stand_ins(measured: Sequence[float], bits: float) -> list[tuple[float, float]]:
    """Measured precisions and their shares that stand for one; none where it lies too far from them."""
    below = [known for known in measured if known <= bits]
    above = [known for known in measured if known > bits]
    if below and (not above or bits / below[-1] < 1 + 1e-9):
        return [(below[-1], 1.0)] if bits / below[-1] < _NEAR_BITS else []
    if above and not below:
        return [(above[0], 1.0)] if above[0] / bits < _NEAR_BITS else []
    if not measured or above[0] / below[-1] >= _WIDEST_GAP:
        return []
    share = (bits - below[-1]) / (above[0] - below[-1])
    return [(below[-1], 1 - share), (above[0], share)]


@dataclass(slots=True)
class MatrixRates:
    """Predicts products [m, k] x [k, n] whose weights come from main memory, as in a model's step.

    Measured points are grouped by matrix size n * k and interpolated on logarithms, between sizes
    and between row counts. Smaller matrices than measured take as long as the smallest, whose
    time is the launch; larger ones take time in proportion to their size. The same holds between the
    working sets they were measured in; outside these, what reading takes grows as bandwidth falls. A
    precision between two measured ones, as of a file that mixes formats, takes times between theirs.
    Without points: the
    larger of the time to read the weights and the time to compute.

    Args:
        profile: the device.
        bits: bits of one weight element.
        working_set_bytes: all weights that a step reads; decides which memory they come from.
        tied_head: use the points of embedding tables that serve as heads, and only those.
    """

    profile: DeviceProfile
    bits: float
    working_set_bytes: float
    tied_head: bool = False
    _forms: list[tuple[float, _Form]] = field(init=False)
    """Share and points of the measured precisions that stand for the one asked."""

    def __post_init__(self) -> None:
        points = [p for p in self.profile.gemm_points if bool(p.get("tied_head")) == self.tied_head]
        measured = sorted({point["bits"] for point in points})
        self._forms = [
            (share, _Form.of([point for point in points if point["bits"] == bits]))
            for bits, share in _stand_ins(measured, self.bits)
        ]

    @property
    def measured(self) -> bool:
        """Whether predictions rest on measured products of this kind and precision."""
        return bool(self._forms)

    def seconds(self, m: float, n: float, k: float) -> float:
        """Seconds of one product with an [n, k] weight matrix and m rows."""
        if m <= 0:
            return 0.0
        elements = n * k
        read = elements * self.bits / 8 / read_bytes_per_s(self.profile, self.working_set_bytes)
        if self._forms:
            size, log_rows = math.log(elements), math.log(m)
            return sum(share * self._seconds(form, read, size, log_rows) for share, form in self._forms)
        return max(read, 2 * m * elements / flops_per_s(self.profile, self.bits))

    def _seconds(self, form: _Form, read: float, log_size: float, log_rows: float) -> float:
        """As measured, with what it takes to read the weights from where a model of this size lies."""
        found = form.seconds(self.working_set_bytes, log_size, log_rows, self.tied_head)
        nearest = form.nearest_bytes(self.working_set_bytes)
        further = read_bytes_per_s(self.profile, nearest) / read_bytes_per_s(
            self.profile, self.working_set_bytes
        )
        return found + min(found, read / further) * (further - 1)


def _interpolate(xs: list[float], ys: list[float], x: float) -> float:
    """Piecewise linear over ascending xs, constant beyond the ends."""
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    i = bisect.bisect_right(xs, x)
    share = (x - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] + share * (ys[i] - ys[i - 1])
