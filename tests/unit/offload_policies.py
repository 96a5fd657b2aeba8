"""Offload policies for tests: made up ones, and those that were trained and are kept beside the tests."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from dataclasses import asdict
from typing import Any

import numpy as np

from pentad.choice import Choice, build
from pentad.resource.offloading.base import OffloadPolicy
from pentad.resource.offloading.learning import trained_strategies
from pentad.resource.offloading.learning.features import PLACED, PLAIN
from pentad.resource.offloading.learning.policy_file import CurvePoint, PolicyFile, write_policy
from pentad.resource.offloading.scenarios import Weights

KEPT = pathlib.Path(__file__).parents[1] / "data" / "offload_policies"
"""Trained with seed 1 by `pentad train-policy NAME --steps 2400 --seed 1`."""


def made_up(name: str, **changes: Any) -> PolicyFile:
    """A policy of small random weights."""
    plan = trained_strategies.plan(name)
    width = len(PLACED if plan.placed else PLAIN)
    draw = np.random.default_rng(0)
    fields = {
        "strategy": name,
        "scenario": plan.scenario.name,
        "environment_sha256": plan.scenario.digest,
        "seed": 0,
        "steps": 1,
        "memories": plan.memories,
        "placed": plan.placed,
        "weights": asdict(Weights()),
        "curve": (CurvePoint(step=1, cost=1.0),),
        "best_step": 1,
        "matrices": tuple(
            tuple(map(tuple, draw.normal(size=shape).tolist())) for shape in ((width, 4), (4, 1))
        ),
        "biases": ((0.0,) * 4, (0.0,)),
    }
    return PolicyFile(**(fields | changes))


@functools.cache
def _file(name: str) -> str:
    path = pathlib.Path(tempfile.mkdtemp(prefix="policy-")) / f"{name}.json"
    write_policy(path, made_up(name))
    return str(path)


def named(name: str) -> str:
    """A policy as settings name it; one that must be trained has made-up weights."""
    return f"{name}:policy={_file(name)}" if name in trained_strategies.names() else name


def built(name: str, **options: Any) -> OffloadPolicy:
    """A policy by its name; one that must be trained has made-up weights."""
    if name in trained_strategies.names():
        options = {"policy": _file(name), **options}
    return build("offload", Choice(name=name, options=options))  # type: ignore[no-any-return]


def kept(name: str, **options: Any) -> OffloadPolicy:
    """A policy with the weights that were trained for the tests."""
    options = {"policy": str(KEPT / f"{name}.json"), **options}
    return build("offload", Choice(name=name, options=options))  # type: ignore[no-any-return]
