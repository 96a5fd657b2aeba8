"""Published throughputs of engines on GPUs, and what a roofline with three constants says of each.

Rows of tests/published_throughput.json were written down before any was compared. Those with the role `fit`
set the constants; those with the role `judge` are what the constants are judged by. A pair is an engine, a
device and a model; its error is the mean over its rows. A row whose keys and values do not fit the memory
cannot have run as a whole batch and is left out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.form import ModelForm
from pentad.execution.spec import Head, ModelSpec, Norm, Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.offline import batch_tokens_per_s
from pentad.resource.placement.plan import Replica
from pentad.resource.placement.predict import pipeline_cost

ROWS: Sequence[Mapping[str, Any]] = json.loads(
    pathlib.Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
MAX_BATCH_TOKENS = 8192
LINK_LATENCY_S = 5e-6
SIZES: Mapping[str, tuple[int, int, int, int, int, int]] = {
    # vocabulary, layers, width, heads, key/value heads, feed-forward
    "llama-7b": (32_000, 32, 4096, 32, 32, 11_008),
    "llama2-7b": (32_000, 32, 4096, 32, 32, 11_008),
    "llama2-13b": (32_000, 40, 5120, 40, 40, 13_824),
    "internlm-20b": (103_168, 60, 5120, 40, 40, 13_824),
    "llama2-70b": (32_000, 80, 8192, 64, 8, 28_672),
    "llama-3-8b": (128_256, 32, 4096, 32, 8, 14_336),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Shares of the peaks that engines reach, and what a layer of a step costs beside."""

    compute: float
    bandwidth: float
    layer_s: float

    def applied(self, device: DeviceProfile, layers: int) -> DeviceProfile:
        reached = {
            "reached_compute": self.compute,
            "reached_bandwidth": self.bandwidth,
            "step_overhead_s": self.layer_s * layers,
        }
        return dataclasses.replace(device, extra={**device.extra, **reached})


def spec_of(model: str) -> ModelSpec:
    """The published sizes of a model."""
    if model == "gptj-6b":
        spec = uniform_spec(
            name=model,
            family="gptj",
            vocab_size=50_400,
            layers=28,
            width=4096,
            heads=16,
            kv_heads=16,
            head_dim=256,
            ffn_width=16_384,
            context_length=4096,
            positions=Rope(dim=64, pairing="interleaved"),
            norm=Norm(kind="layer"),
            activation="gelu_tanh",
            gated=False,
            parallel_block=True,
        )
        return dataclasses.replace(spec, head=Head(tied=False, bias=True))
    vocabulary, layers, width, heads, kv_heads, ffn_width = SIZES[model]
    return uniform_spec(
        name=model,
        family="llama",
        vocab_size=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // heads,
        ffn_width=ffn_width,
        context_length=8192,
        positions=Rope(dim=width // heads),
        tied_head=False,
    )


def predicted(row: Mapping[str, Any], constants: Constants) -> float | None:
    """Tokens per second of a row; None where the batch does not fit."""
    spec = spec_of(row["model"])
    device = constants.applied(profile.find(row["device"]), spec.layers)
    devices = [dataclasses.replace(device, name=f"{device.name}-{i}") for i in range(row["devices"])]
    link = LinkSpeed(bytes_per_s=device.ports.get("nvlink", 32e9), latency_s=LINK_LATENCY_S)
    problem = PlacementProblem(
        spec=spec,
        cluster=Cluster(devices=tuple(devices), default_link=link),
        workload=Workload(
            prompt_tokens=row["prompt_tokens"],
            new_tokens=row["new_tokens"],
            concurrency=row["batch"],
            max_batch_tokens=MAX_BATCH_TOKENS,
        ),
        form=ModelForm(weight_bits=row["weight_bits"], kv_bits=row["kv_bits"]),
        memory_fraction=0.98,
    )
    members = [(one, 1 / len(devices)) for one in devices]
    stages = group_on(problem, members, 0, spec.layers)
    if any(stage.weight_bytes + stage.kv_bytes > stage.usable_bytes for stage in stages):
        return None
    try:
        return batch_tokens_per_s(problem, pipeline_cost(problem, Replica(stages=stages)))
    except Infeasible:
        return None


def errors(
    rows: Iterable[Mapping[str, Any]], constants: Constants
) -> dict[tuple[str, str, str], list[float]]:
    """Per pair of engine, device and model the relative errors of its rows; too fast is positive."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        rate = predicted(row, constants)
        if rate is not None:
            found[row["engine"], row["device"], row["model"]].append(rate / row["tokens_per_s"] - 1)
    return found


def fitted() -> Constants:
    """The constants with the least mean error over the rows that set them, of a coarse grid."""
    rows = [row for row in ROWS if row["role"] == "fit"]
    grid = itertools.product((0.5, 0.6, 0.7), (0.7, 0.8, 0.9), (0.0, 2e-5, 5e-5, 1e-4))

    def loss(constants: Constants) -> float:
        off = [abs(one) for many in errors(rows, constants).values() for one in many]
        return sum(off) / len(off)

    return min((Constants(compute=c, bandwidth=b, layer_s=s) for c, b, s in grid), key=loss)


FITTED = Constants(compute=0.6, bandwidth=0.8, layer_s=5e-5)
"""What `fitted` finds; a test holds it to that."""
