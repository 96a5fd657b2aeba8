"""MLC-LLM's folders: mlc-chat-config.json and shards of parameters."""

from __future__ import annotations

import pathlib

from pentad.errors import BadModelFile
from pentad.model.exports.base import Exported, manifest, part, whole

_CACHES = ("tensor-cache.json", "ndarray-cache.json")
"""Which shards there are: the present name and the one before."""


def read_mlc(path: pathlib.Path) -> Exported:
    """Source: MLC-LLM, docs on compiled model artifacts; the shards are checked by size, not by digest."""
    config = manifest(path, "mlc-chat-config.json")
    cache = next((name for name in _CACHES if (path / name).is_file()), _CACHES[0])
    records = manifest(path, cache).get("records")
    if not isinstance(records, list) or not records:
        raise BadModelFile(f"{path / cache} lists no shards", hint="convert the weights again")
    size = 0
    for record in records:
        name, declared = (
            (record.get("dataPath"), record.get("nbytes")) if isinstance(record, dict) else ("", 0)
        )
        size += part(path, name, at_least=whole(declared, f"nbytes of {str(name)[:80]}"))
    return Exported(
        format="mlc",
        size_bytes=size,
        context_length=whole(config.get("context_window_size"), "context_window_size"),
        quantization=str(config.get("quantization")),
        devices=whole(config.get("tensor_parallel_shards", 1), "tensor_parallel_shards"),
    )
