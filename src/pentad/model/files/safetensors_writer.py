"""Writing one safetensors file: a header of names, types and offsets, then the tensors in its order."""

from __future__ import annotations

import json
import os
import pathlib
import struct
from collections.abc import Iterable, Mapping

from pentad.errors import Incompatible
from pentad.execution.weights import StoredTensor
from pentad.model.files.gguf_writer import TensorHead

PLAIN = ("F32", "F16", "BF16")


def write_safetensors(
    path: pathlib.Path,
    heads: Iterable[TensorHead],
    tensors: Iterable[StoredTensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the file, whole or not at all. `tensors` come in the order of `heads`, read one at a time.

    Raises:
        Incompatible: a block format, which safetensors has no type for.
        ValueError: the tensors are not those of the table.
    """
    heads = list(heads)
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for head in heads:
        if head.format not in PLAIN:
            raise Incompatible(
                f"tensor {head.name!r} is {head.format}, which safetensors files do not hold",
                hint=f"choose the format {' or '.join(PLAIN)}",
            )
        begin, end = end, end + head.size_bytes
        entries[head.name] = {
            "dtype": head.format,
            "shape": list(head.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight, as readers like it
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(struct.pack("<Q", len(header)) + header)
            for head, tensor in zip(heads, tensors, strict=True):
                if (tensor.name, tensor.format, tensor.shape) != (head.name, head.format, head.shape):
                    raise ValueError(f"tensor {tensor.name!r} {tensor.format} is not next: {head}")
                out.write(tensor.data.data)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
