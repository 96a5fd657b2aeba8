"""docs/formats.md, from the table of formats and from how the kernels hold each."""

from __future__ import annotations

from pentad.execution.formats.base import BlockFormat
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.forms import FORMS, NativeForm
from pentad.model.files.quantized.container import METHODS

_HEAD = """# Formats of model files

Generated from the tables of formats by `scripts/docs`; do not edit.

Every format is read exactly: the numbers of GGUF tensors are bit for bit those of the `gguf` package's
reader, those of quantized safetensors are what the method's published formula gives in float32. PyTorch
computes with these numbers. The native kernels hold a matrix in 4 to 8 bits:

- *codes kept*: every code of the file stays what it is; scales are kept in fp16, which is exact where the
  file has them in fp16, and else rounds by about 0.0002;
- *rounded*: numbers become 8-bit codes with a scale for each 32.

Bits are those of a weight with its scales. The error is relative, in the mean square, as measured on random
weights: what products are off by beside the rounding of activations to 8 bits. A test holds each.

| format | bits in the file | bits in the kernels | how | error at most |
|---|---|---|---|---|
"""
_METHODS = """
## GGUF

Versions 2 and 3, in one file or split (`NAME-00001-of-00003.gguf`): name any part.

## Quantized safetensors

`quantization_config` in `config.json` names the method. Read are:

| `quant_method` | what |
|---|---|
"""
_ABOUT = {
    "gptq": "2, 3, 4 and 8 bits, `desc_act` or not, `gptq` and `gptq_v2` checkpoints; becomes INT4 where "
    "`sym`, else UINT4; with `desc_act`, or zero points in 8 bits, F32, which the kernels round",
    "awq": "4 bits with zero points, version `gemm`; becomes UINT4",
    "compressed-tensors": "`pack-quantized` int4 and int8, `int-quantized` int8, `float-quantized` fp8",
    "fp8": "E4M3 with a scale of the tensor, of each row, or of blocks (`weight_block_size`, DeepSeek), "
    "becomes FP8; E5M2, becomes F32",
    "fbgemm_fp8": "E4M3 with a scale of each row",
    "mxfp4": "stacks of experts' matrices (gpt-oss), stays MXFP4",
    "bitsandbytes": "NF4, its scales quantized or not, and int8; becomes NF4 and INT8",
}
_TAIL = """
Another method, or a form of these that is not listed, is refused by its name when the model is opened.
What is put together of several tensors is made when it is read and kept nowhere; loading takes the memory
of the largest matrix beside the packed weights.
"""


def formats_page() -> str:
    """The page's text."""
    lines = [_HEAD]
    lines += [_line(format, FORMS[name]) for name, format in GEOMETRY.items()]
    lines.append(_METHODS)
    lines += [f"| `{name}` | {_ABOUT[name]} |\n" for name in METHODS]
    lines.append(_TAIL)
    return "".join(lines)


def _line(format: BlockFormat, form: NativeForm) -> str:
    how = "codes kept" if form.keeps_codes else "rounded"
    return f"| {format.name} | {format.bits:g} | {form.bits:g} | {how} | {form.error:g} |\n"
