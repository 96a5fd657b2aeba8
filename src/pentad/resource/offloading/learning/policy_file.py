"""Policy files: what a network has learnt, in JSON, with all that its training can be repeated from."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from typing import Literal

import msgspec
import numpy as np

from pentad.errors import BadModelFile
from pentad.execution.value_learning import Layers
from pentad.json_text import parse_json
from pentad.resource.offloading.learning.features import PLACED, PLAIN
from pentad.resource.offloading.scenarios import Weights

_MOST_BYTES = 4_000_000
_AGAIN = "train it again: pentad train-policy {name} --out FILE"


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How good the policy was after so many choices."""

    step: int
    cost: float
    """Mean of a request, over episodes that it is not trained on."""
    met: float | None = None
    """Share of the deadlines met in these."""


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trained policy."""

    format: Literal["pentad-offload-policy-1"] = "pentad-offload-policy-1"
    strategy: str
    scenario: str
    environment_sha256: str
    """Of all numbers of the scenario."""
    seed: int
    steps: int
    memories: Literal["one", "by-kind"]
    placed: bool
    """Whether its features tell machines apart."""
    weights: dict[str, float]
    """What made up the cost."""
    curve: tuple[CurvePoint, ...]
    best_step: int
    """Of the curve: whose network this is."""
    matrices: tuple[tuple[tuple[float, ...], ...], ...]
    """[inputs][outputs] of each layer."""
    biases: tuple[tuple[float, ...], ...]

    @property
    def layers(self) -> Layers:
        return [
            (np.array(matrix, np.float32), np.array(bias, np.float32))
            for matrix, bias in zip(self.matrices, self.biases, strict=True)
        ]

    @property
    def cost(self) -> Weights:
        return Weights(**self.weights)


def write_policy(path: pathlib.Path, policy: PolicyFile) -> None:
    """Puts the file there whole or not at all."""
    partial = path.with_name(path.name + ".new")
    with partial.open("w", encoding="utf-8") as out:
        json.dump(msgspec.to_builtins(policy), out)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


def read_policy(path: str, strategy: str) -> PolicyFile:
    """The policy in a file, kept while the file stays as it is.

    Raises:
        BadModelFile: there is no such file, or it is no policy of this strategy.
    """
    try:
        found = pathlib.Path(path).stat()
    except OSError as error:
        raise BadModelFile(
            f"the policy file {path!r} cannot be read: {error.strerror}",
            hint=_AGAIN.format(name=strategy),
            param="offload.policy",
        ) from None
    return _read(path, strategy, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=16)
def _read(path: str, strategy: str, mtime_ns: int, size: int) -> PolicyFile:  # noqa: ARG001 - part of the key
    hint = _AGAIN.format(name=strategy)
    try:
        if size > _MOST_BYTES:
            raise ValueError(f"it has {size} bytes, more than {_MOST_BYTES}")
        policy = msgspec.convert(parse_json(pathlib.Path(path).read_bytes()), PolicyFile)
        _check(policy)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise BadModelFile(
            f"{path!r} is no policy file: {error}", hint=hint, param="offload.policy"
        ) from None
    if policy.strategy != strategy:
        raise BadModelFile(
            f"{path!r} was trained for {policy.strategy!r}, not for {strategy!r}",
            hint=f"choose {policy.strategy}:policy={path}, or {hint}",
            param="offload.policy",
        )
    return policy


def _check(policy: PolicyFile) -> None:
    """Raises ValueError unless the layers fit each other and the features."""
    inputs = len(PLACED if policy.placed else PLAIN)
    if len(policy.matrices) != len(policy.biases) or not policy.biases:
        raise ValueError("its layers are not whole")
    for matrix, bias in zip(policy.matrices, policy.biases, strict=True):
        if len(matrix) != inputs or any(len(row) != len(bias) for row in matrix):
            raise ValueError(f"a layer of {len(matrix)} inputs stands where {inputs} are needed")
        inputs = len(bias)
    if inputs != 1:
        raise ValueError(f"it ends in {inputs} numbers, not in one score")
    if not all(np.isfinite(part).all() for layer in policy.layers for part in layer):
        raise ValueError("it holds numbers that are not finite")
    policy.cost  # noqa: B018 - raises TypeError for names that are no weights
