"""Random clusters for the tests of placement: unequal devices and links, memory that binds."""

from __future__ import annotations

import itertools
import random

from pentad.execution.device import Cluster, DeviceProfile, Link, MemoryTier
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.placement import Workload
from pentad.resource.placement.base import PlacementProblem


def decoder(layers: int, width: int = 1024, heads: int = 16, kv_heads: int = 4) -> ModelSpec:
    """A model of ordinary proportions."""
    return uniform_spec(
        name=f"decoder-{layers}",
        family="llama",
        vocab_size=32_000,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // heads,
        ffn_width=4 * width,
        context_length=8192,
        positions=Rope(dim=width // heads),
    )


def random_device(draw: random.Random, name: str, need_bytes: float) -> DeviceProfile:
    """A device that holds between a third and twice what a model needs, of a speed within a factor of 20."""
    bandwidth = draw.choice([5e10, 1e11, 3e11, 1e12])
    memory = int(need_bytes * draw.choice([0.35, 0.6, 0.9, 1.3, 2.0]))
    return DeviceProfile(
        name=name,
        kind="gpu",
        source="assumed",
        memory=(MemoryTier(name="main", capacity_bytes=memory, read_bytes_per_s=bandwidth),),
        flops_per_s={"bf16": bandwidth * draw.choice([50, 150, 300])},
        power_w=draw.choice([15.0, 60.0, 300.0]),
        price_per_hour=draw.choice([0.1, 0.5, 2.0]),
    )


def random_problem(
    seed: int, *, most_devices: int = 4, requests: tuple[int, ...] = (1, 2, 4)
) -> PlacementProblem:
    """A small cluster with links between a home network and a fast bus, and a load for it."""
    draw = random.Random(seed)
    spec = decoder(draw.choice([4, 6]))
    load = Workload(
        prompt_tokens=draw.choice([32, 512]),
        new_tokens=draw.choice([16, 128]),
        concurrency=draw.choice(requests),
    )
    need = 2 * spec.parameters * 1.2 + load.concurrency * load.slots_per_sequence * spec.kv_bytes_per_token()
    devices = tuple(random_device(draw, f"d{i}", need) for i in range(draw.randint(2, most_devices)))
    links = []
    for a, b in itertools.combinations(devices, 2):
        rate, latency = draw.choice([(1.25e7, 5e-3), (1.25e8, 5e-4), (1.25e9, 5e-5), (5e10, 5e-6)])
        links += [
            Link(source=one.name, target=other.name, bytes_per_s=rate, latency_s=latency)
            for one, other in ((a, b), (b, a))
        ]
    return PlacementProblem(spec=spec, cluster=Cluster(devices=devices, links=tuple(links)), workload=load)
