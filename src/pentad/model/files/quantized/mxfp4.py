"""MXFP4 in safetensors: stacks of experts' matrices in blocks of 32 numbers (gpt-oss).

    experts.down_proj_blocks [X, out, in / 32, 16]   two codes in a byte, the first in the lower half
    experts.down_proj_scales [X, out, in / 32]       powers of two, stored 127 too high

They become `experts.down_proj.weight` [X, out, in] in the blocks of GGUF files, code by code. Source: OCP
Microscaling Formats v1.0; the order of codes is that of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pentad.execution.formats.base import Bytes
from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import Matrix, Members

_ELEMENTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Mxfp4:
    """The method `mxfp4`."""

    label: str = "mxfp4"
    main: str = "_blocks"
    types: tuple[str, ...] = ("U8",)
    others: tuple[str, ...] = ("_scales",)

    @classmethod
    def from_config(cls, config: Fields) -> Mxfp4:  # noqa: ARG003 - it has no options that bear on reading
        """With the options of a `quantization_config`."""
        return cls()

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        *stack, rows, blocks, _ = members.shape("_blocks", self.types, None, None, None, _ELEMENTS // 2)
        members.shape("_scales", self.types, *stack, rows, blocks)

        def part(index: int) -> Bytes:
            return _packed(members.array("_blocks")[index], members.array("_scales")[index])

        def whole() -> Bytes:
            return _packed(members.array("_blocks"), members.array("_scales"))

        return Matrix(shape=(*stack, rows, blocks * _ELEMENTS), format="MXFP4", make=whole, part=part)


def _packed(codes: Bytes, scales: Bytes) -> Bytes:
    """Blocks of a scale and 16 bytes, of which byte i holds the codes i and i + 16."""
    codes = codes.reshape(-1, _ELEMENTS // 2)
    single = np.stack((codes & 15, codes >> 4), axis=-1).reshape(-1, 2, _ELEMENTS // 2)
    packed = single[:, 0] | single[:, 1] << 4
    return np.concatenate((scales.reshape(-1, 1), packed), axis=1).reshape(-1)
