"""8-bit floats with a scale: of the tensor, of each output, or of blocks (DeepSeek).

    weight [out, in]   weight_scale, or weight_scale_inv: [], [1], [out], [out, 1] or [out / b, in / b]

Both names mean what a weight is multiplied with. Source: Micikevicius et al. 2022; the checkpoints of
DeepSeek-V3 and the `fp8` methods of `transformers` and vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.scaled import ELEMENTS, e4m3_numbers, scaled_blocks
from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import FLOAT_TYPES, Matrix, Members, dense

_SCALES = (".weight_scale_inv", ".weight_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Floats8:
    """The methods `fp8` and `fbgemm_fp8`, and the weights of compressed-tensors' `float-quantized`."""

    block: tuple[int, int] | None = None
    """Rows and columns that share a scale, where blocks do."""
    label: str = "fp8"
    main: str = ".weight"
    types: tuple[str, ...] = ("F8_E4M3", "F8_E5M2")
    others: tuple[str, ...] = (*_SCALES, ".input_scale", ".input_scale_ub", ".activation_scale")

    @classmethod
    def from_config(cls, config: Fields) -> Floats8:
        """With the options of a `quantization_config`. Raises BadModelFile."""
        return cls(block=block_of(config, "weight_block_size"))

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        rows, columns = members.shape(".weight", self.types, None, None)
        suffix = next((name for name in _SCALES if members.info(name) is not None), _SCALES[1])
        info = members.info(suffix)
        shape = () if info is None else info.shape
        per_block = len(shape) == 2 and shape != (rows, 1) and shape != (1, 1)
        if per_block:
            if self.block is None:
                members.fail(suffix, f"has shape {shape}, but the config gives no block size")
            high, wide = self.block
            members.shape(suffix, FLOAT_TYPES, -(-rows // high), -(-columns // wide))
        elif np.prod(shape) not in (1, rows):
            members.fail(suffix, f"has shape {shape} beside a matrix of {(rows, columns)}")
        else:
            high, wide = rows if np.prod(shape) == 1 else 1, columns
            members.shape(suffix, FLOAT_TYPES, *shape)

        def scale(step: int) -> Floats:
            """Of every `step` columns: [out, in / step]."""
            found = members.floats(suffix).reshape(-1, -(-columns // wide))
            found = np.repeat(found, high, axis=0)[:rows]
            return found[:, np.arange(0, columns, step) // wide]

        whole = columns % ELEMENTS == 0 and (wide % ELEMENTS == 0 or wide == columns)
        main = members.info(".weight")
        if whole and main is not None and main.format == "F8_E4M3":

            def blocks() -> Bytes:
                codes = members.array(".weight").reshape(-1, ELEMENTS)
                return scaled_blocks(scale(ELEMENTS).reshape(-1), codes).reshape(-1)

            return Matrix(shape=(rows, columns), format="FP8", make=blocks)

        def numbers() -> Bytes:
            return dense(_numbers(members) * scale(1))

        return Matrix(shape=(rows, columns), format="F32", make=numbers)


def _numbers(members: Members) -> Floats:
    codes, info = members.array(".weight"), members.info(".weight")
    if info is not None and info.format == "F8_E5M2":  # the upper byte of an fp16 number
        return np.left_shift(codes.astype(np.uint16), np.uint16(8)).view(np.float16).astype(np.float32)
    return e4m3_numbers(codes)


def block_of(config: Fields, key: str) -> tuple[int, int] | None:
    """Rows and columns of blocks with a scale, as an option names them; None where it does not."""
    value = config.values.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) is int and v > 0 for v in value):
        config.fail(key, f"is {str(value)[:60]}, must be two sizes")
    return value[0], value[1]
