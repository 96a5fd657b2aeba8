"""What a runner spends beside large matrix products, fitted over steps of made-up models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pentad.execution.device import DeviceProfile
from pentad.execution.form import ModelForm
from pentad.execution.probe import Probe
from pentad.execution.spec import ModelSpec
from pentad.resource.cost import StepCost, counted_units, software_units
from pentad.resource.fitting import non_negative_least_squares
from pentad.resource.profile.synthetic import SequenceShape, SyntheticWeights, geometry, time_step
from pentad.resource.step_shape import StepShape

NUM_BLOCKS = 600
COLD_ABOVE_BYTES = 64 << 20
"""Models above this stream through the caches, which costs every layer extra launch time."""

Measured = tuple[ModelSpec, StepShape, float]
Progress = Callable[[str], None]

_DECODES: Sequence[Sequence[SequenceShape]] = (
    [(1, 32)],
    [(1, 1024)],
    [(1, 32)] * 8,
    [(1, 1024)] * 8,
)
_CHUNKS: Sequence[Sequence[SequenceShape]] = (
    [(16, 16)],
    [(64, 64)],
    [(256, 256)],
    [(256, 1280)],
    [(1, 256)] * 8 + [(120, 120)],
    [(1, 600)] * 4 + [(60, 300)],
)
TABLE_ROWS = (1, 2, 4, 8, 16, 32)


def geometries() -> tuple[ModelSpec, ...]:
    """Made-up models, each of which makes one kind of work large. The last two stream their weights."""
    small: dict[str, Any] = {"width": 64, "head_dim": 64, "vocab": 512}
    return (
        geometry("launches", layers=24, heads=2, kv_heads=1, ffn=128, **small | {"head_dim": 32}),
        geometry("attention", layers=8, heads=8, kv_heads=2, ffn=64, **small),
        geometry("attention-wide", layers=8, heads=12, kv_heads=6, ffn=64, **small),
        geometry("width", layers=8, heads=4, kv_heads=1, ffn=128, **small | {"width": 1024}),
        geometry("inner", layers=8, heads=4, kv_heads=1, ffn=4096, **small),
        geometry("logits", layers=2, heads=4, kv_heads=1, ffn=128, **small | {"vocab": 65536}),
        geometry("stream", layers=24, heads=12, kv_heads=4, ffn=2048, **small | {"width": 768}),
        geometry("stream-deep", layers=40, heads=8, kv_heads=2, ffn=1792, **small | {"width": 512}),
    )


def streaming_geometries() -> tuple[ModelSpec, ...]:
    """Made-up models that all stream their weights, and differ in what they do beside."""
    return (
        geometry("narrow", layers=48, width=256, heads=4, kv_heads=2, head_dim=64, ffn=1024, vocab=4096),
        geometry("attention", layers=24, width=512, heads=16, kv_heads=4, head_dim=64, ffn=1024, vocab=4096),
        geometry("caches", layers=24, width=512, heads=8, kv_heads=8, head_dim=64, ffn=1536, vocab=4096),
        geometry("wide", layers=10, width=1536, heads=12, kv_heads=2, head_dim=128, ffn=1536, vocab=4096),
        geometry("inner", layers=10, width=512, heads=8, kv_heads=2, head_dim=64, ffn=6144, vocab=4096),
        geometry("logits", layers=6, width=768, heads=12, kv_heads=4, head_dim=64, ffn=2048, vocab=98_304),
    )


def measure_steps(probe: Probe, repeats: int, progress: Progress) -> Iterator[Measured]:
    """Times every shape on every geometry."""
    for spec in geometries() if probe.launch_bound else streaming_geometries():
        progress(f"steps of a made-up model ({spec.name})")
        runner = probe.load(spec, SyntheticWeights(spec), num_blocks=NUM_BLOCKS)
        for sequences in (*_DECODES, *_CHUNKS):
            shape, seconds = time_step(runner, sequences, repeats=repeats)
            yield spec, shape, seconds
        runner.close()


def measure_tied_head(probe: Probe, repeats: int, progress: Progress) -> list[dict[str, float]]:
    """Matrix points of an embedding table used as head, as the difference that its size makes."""
    progress("embedding tables as heads")
    seconds: dict[int, dict[int, float]] = {}
    width, sizes = 1024, (1024, 98_304)
    for vocab in sizes:
        spec = geometry(
            "table", layers=1, width=width, heads=2, kv_heads=1, head_dim=64, ffn=128, vocab=vocab
        )
        runner = probe.load(spec, SyntheticWeights(spec), num_blocks=NUM_BLOCKS)
        seconds[vocab] = {
            rows: time_step(runner, [(1, 32)] * rows, repeats=repeats)[1] for rows in TABLE_ROWS
        }
        runner.close()
    n = sizes[1] - sizes[0]
    return [
        {
            "m": rows,
            "n": n,
            "k": width,
            "bits": probe.form.weight_bits,
            "seconds": max(1e-9, seconds[sizes[1]][rows] - seconds[sizes[0]][rows]),
            "tied_head": 1,
        }
        for rows in TABLE_ROWS
    ]


def fit_software(
    profile: DeviceProfile, measured: Sequence[Measured], form: ModelForm, *, dense_attention: bool = False
) -> dict[str, float]:
    """Seconds per unit of each cost in `software_units`, by non-negative least squares.

    What the profile's matrix points explain is taken off first; residuals are relative. Launches
    are fitted once for models that stay in the caches and once more for those that stream; only
    the sum, which real models pay, is returned.

    Args:
        profile: with the matrix points.
        measured: steps of models in `form`.
        form: the precision of their weights and caches.
        dense_attention: see `execution.probe.Probe`.
    """
    rows, targets = [], []
    names = list(software_units(measured[0][0]))
    for spec, shape, seconds in measured:
        units = [
            count * counted_units(shape, counted, dense=dense_attention)
            for _, counted, count in software_units(spec).values()
        ]
        streams = form.weight_bytes(spec.parameters) > COLD_ABOVE_BYTES and spec.layers > 2
        matrices = StepCost(profile=profile, spec=spec, form=form).terms(shape)[0]
        rows.append(np.array([*units, spec.layers * streams]) / seconds)
        targets.append(1 - matrices / seconds)
    fitted = non_negative_least_squares(np.array(rows), np.array(targets)).tolist()
    costs = dict(zip(names, fitted, strict=False))
    costs["layer_overhead_s"] += fitted[-1]
    residuals = np.array(rows) @ np.array(fitted) - np.array(targets)
    costs["software_fit_error"] = float(np.median(np.abs(residuals)))
    costs["software_bits"] = float(form.kv_bits)
    costs["dense_attention"] = float(dense_attention)
    return costs
