"""What a step does, op by op, built from a ModelSpec: the order that the native kernels run.

    embed  [norm qkv attend out  norm gate_up down] per layer  head

An op ends where others need all of its result. Where a matrix is split over the ranks of a group its
`collective` says how they meet behind it: what `out` and `down` give is added up, logits are put
together. The plain PyTorch program (torch/program.py) reads the same records, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pentad.execution.spec import ModelSpec

OpKind = Literal["embed", "norm", "qkv", "attend", "out", "gate_up", "down", "head"]
Collective = Literal["sum", "gather"]
MODEL = -1
"""The layer number of what belongs to no layer."""


@dataclass(frozen=True, slots=True)
class Op:
    """One op of a step."""

    kind: OpKind
    layer: int = MODEL
    tensor: str | None = None
    """Of a norm: whose weights, by canonical name without the layer."""
    collective: Collective | None = None


def step_program(spec: ModelSpec) -> tuple[Op, ...]:
    """The ops of a step of a decoder whose layers all norm in front of their parts."""
    ops = [Op("embed")]
    for i in range(spec.layers):
        ops += [
            Op("norm", i, "attn_norm"),
            Op("qkv", i),
            Op("attend", i),
            Op("out", i, collective="sum"),
            Op("norm", i, "ffn_norm"),
            Op("gate_up", i),
            Op("down", i, collective="sum"),
        ]
    return (*ops, Op("head", collective="gather"))
