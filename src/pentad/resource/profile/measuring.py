"""`measure`: this machine as a DeviceProfile, through the kernels that its runner uses."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pentad.errors import PentadError
from pentad.execution.device import DeviceProfile, MemoryTier
from pentad.execution.native.choice import AUTO, TORCH
from pentad.execution.native.library import built, cpu_flags, usable
from pentad.execution.probe import Probe
from pentad.registry import load
from pentad.resource.profile import hardware
from pentad.resource.profile.software import fit_software, measure_steps, measure_tied_head

Progress = Callable[[str], None]
"""Told what is being measured now, in a few words."""

DOUBTFUL_FIT = 0.15
"""Median relative error of the step fit above which something disturbed the measurement."""

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much to measure; `Effort.quick()` is coarse and takes seconds."""

    working_sets_bytes: Sequence[int] = (
        32 * _KIB,
        256 * _KIB,
        _MIB,
        4 * _MIB,
        16 * _MIB,
        64 * _MIB,
        256 * _MIB,
        1024 * _MIB,
    )
    matrices: Sequence[tuple[int, int]] = (
        (64, 64),
        (256, 256),
        (768, 512),
        (1536, 1024),
        (4096, 1024),
        (8192, 4096),
        (65536, 2048),
    )
    """(out, in), in ascending size."""
    rows: Sequence[int] = (1, 2, 4, 8, 11, 12, 16, 32, 64, 128, 256, 512)
    rows_for_largest: int = 64
    """Larger row counts are skipped for the largest matrix, which stands for heads."""
    repeats: int = 5
    passes: int = 2
    """Over all products: what disturbs one pass seldom disturbs the other, and the faster counts."""
    steps: bool = True
    """Whether to run made-up models for the costs beside matrix products."""
    disk_bytes: int = 256 * _MIB
    other_precisions: bool = True
    """Whether to take the rate of large products in the precision that the runner does not prefer."""
    loopback: bool = True
    """Whether to open a connection to this machine itself."""
    folder: pathlib.Path = field(default_factory=lambda: pathlib.Path(tempfile.gettempdir()))
    """Where the disk is measured."""

    @classmethod
    def quick(cls) -> Effort:
        """Enough for a first plan; predictions of real steps are then rooflines."""
        return cls(
            working_sets_bytes=(256 * _KIB, 4 * _MIB, 64 * _MIB),
            matrices=((768, 512), (1536, 1024)),
            rows=(1, 8, 64),
            repeats=1,
            passes=1,
            steps=False,
            disk_bytes=16 * _MIB,
            other_precisions=False,
        )


def measure(
    progress: Progress | None = None, *, effort: Effort | None = None, kernels: str = AUTO
) -> DeviceProfile:
    """Measures this machine. Takes one to two minutes on an idle machine of two cores.

    Cores, instruction set, caches and memory; read bandwidth by working set; matrix products over
    row counts and sizes; what a step costs beside them; disk; loopback. Where nothing is installed
    that computes models, bandwidth is measured with numpy and the rest is left out. What fails on
    this machine (a read-only disk, no loopback) is left out too and reported to `progress`.

    Args:
        progress: told what is being measured.
        effort: how much to measure; None means the full set.
        kernels: whose products and steps: `torch`, an instruction set of the native kernels, or
            `auto` for those that an engine would use here.

    Raises:
        UnknownName, Incompatible: kernels asked for by name that cannot be had.
    """
    effort, tell = effort or Effort(), progress or (lambda _: None)
    load_average = hardware.load_average()
    if load_average > 0.5:
        tell(f"the machine is busy (load {load_average:.1f}): rates will come out too low")
    probe = open_probe(kernels, tell)
    bandwidths = _bandwidths(probe, effort, tell)
    profile = DeviceProfile(
        name=hardware.host_name(),
        kind="cpu",
        source="measured",
        memory=_tiers(bandwidths, effort, tell),
        bandwidth_by_working_set=bandwidths,
        cores=hardware.cores(),
        isa=hardware.isa(),
        kernels=probe.kernels if probe else None,
        extra={"load_average": load_average} | (_loopback(tell) if effort.loopback else {}),
    )
    if probe is None:
        return profile
    profile = _with_products(profile, probe, effort, tell)
    return _with_steps(profile, probe, effort, tell) if effort.steps else profile


def open_probe(kernels: str, tell: Progress) -> Probe | None:
    """What measures the kernels asked for; None, and a word to `tell`, where there are none."""
    native = kernels not in (AUTO, TORCH) or (kernels == AUTO and usable(cpu_flags(), built()))
    try:
        if native:
            found: Probe = load("probe", "native")(kernels)
        else:
            found = load("probe", "torch")()
    except (ImportError, PentadError) as error:
        if kernels != AUTO and isinstance(error, PentadError):
            raise
        tell(f"nothing computes models here ({error}): numpy measures the bandwidth")
        return None
    return found


def _bandwidths(probe: Probe | None, effort: Effort, tell: Progress) -> tuple[tuple[int, float], ...]:
    read = hardware.numpy_read_bytes_per_s if probe is None else probe.stream_read_bytes_per_s
    most = hardware.memory_bytes() // 8
    points = []
    for size in effort.working_sets_bytes:
        if size <= most:
            tell(f"reading {size >> 10} KiB over and over")
            points.append((size, float(read(size))))
    return tuple(points)


def _tiers(bandwidths: Sequence[tuple[int, float]], effort: Effort, tell: Progress) -> tuple[MemoryTier, ...]:
    """Caches with the bandwidth of the largest set that fits half of them, main memory, disk."""
    tiers = []
    for name, size in hardware.cache_bytes():
        inside = [rate for working_set, rate in bandwidths if working_set <= size // 2]
        if inside:
            tiers.append(MemoryTier(name=name, capacity_bytes=size, read_bytes_per_s=inside[-1]))
    main = MemoryTier(name="main", capacity_bytes=hardware.memory_bytes(), read_bytes_per_s=bandwidths[-1][1])
    tell("writing and reading the disk")
    try:
        return (*tiers, main, hardware.disk(effort.folder, effort.disk_bytes))
    except OSError as error:
        tell(f"no disk rates: {error}")
        return (*tiers, main)


def _loopback(tell: Progress) -> dict[str, float]:
    tell("sending to itself over TCP")
    try:
        return hardware.loopback()
    except OSError as error:
        tell(f"no loopback rates: {error}")
        return {}


def _with_products(profile: DeviceProfile, probe: Probe, effort: Effort, tell: Progress) -> DeviceProfile:
    """Adds matrix products in the runner's precisions, and the best rate of each precision."""
    most = hardware.memory_bytes() // 16
    best: dict[tuple[float, int, int, int], float] = {}
    for again in range(effort.passes):
        for bits in probe.rates:
            for n, k in effort.matrices:
                if n * k * bits // 8 > most:
                    continue
                tell(f"products with {n} x {k} weights of {bits:g} bits{', again' if again else ''}")
                for m in effort.rows:
                    if (n, k) != effort.matrices[-1] or m <= effort.rows_for_largest:
                        seconds = probe.gemm_seconds(m, n, k, bits, repeats=effort.repeats)
                        best[bits, n, k, m] = min(seconds, best.get((bits, n, k, m), seconds))
    points = tuple(
        {"m": m, "n": n, "k": k, "bits": bits, "seconds": seconds}
        for (bits, n, k, m), seconds in best.items()
    )
    rates = {
        rate: max(2 * m * n * k / seconds for (form, n, k, m), seconds in best.items() if form == bits)
        for bits, rate in probe.rates.items()
    }
    if effort.other_precisions:
        m, (n, k) = effort.rows[-1], (1536, 1024)
        for other, rate in probe.other_rates.items():
            tell(f"products with weights of {other:g} bits")
            seconds = probe.gemm_seconds(m, n, k, other, repeats=effort.repeats)
            rates[rate] = 2 * m * n * k / seconds
    if not rates.keys() & {"f32", "bf16", "f16"}:
        tell("products in numpy")
        rates["f32"] = hardware.numpy_flops_per_s()
    extra = {**profile.extra, "prompts_apart": float(probe.prompts_apart)}
    return replace(profile, gemm_points=points, flops_per_s=rates, extra=extra)


def _with_steps(profile: DeviceProfile, probe: Probe, effort: Effort, tell: Progress) -> DeviceProfile:
    """Adds what steps cost beside matrix products, from made-up models on the runner."""
    repeats = effort.repeats
    if probe.heads_differ:
        heads = measure_tied_head(probe, repeats, tell)
        profile = replace(profile, gemm_points=(*profile.gemm_points, *heads))
    steps = list(measure_steps(probe, repeats, tell))
    costs = fit_software(profile, steps, probe.form, dense_attention=probe.dense_attention)
    if costs["software_fit_error"] > DOUBTFUL_FIT:
        tell(
            f"steps differ from their fit by {costs['software_fit_error']:.0%}: the machine was busy, "
            "measure again when it is idle"
        )
    return replace(profile, extra={**profile.extra, **costs})
