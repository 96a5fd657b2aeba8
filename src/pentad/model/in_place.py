"""A model that is opened where it lies, without being pulled."""

from __future__ import annotations

import pathlib

from pentad.model.sources.base import PathRef
from pentad.model.sources.choice import name_of
from pentad.model.sources.local import LocalSource
from pentad.model.stored import StoredFile, StoredModel


def in_place(path: pathlib.Path) -> StoredModel:
    """The file or folder as a model of no store. Raises ModelNotFound or BadModelFile."""
    ref = PathRef(path=path)
    found = LocalSource(ref=ref).look()
    return StoredModel(
        name=name_of(ref),
        ref=str(path),
        path=path,
        format="safetensors" if path.is_dir() else "gguf",
        files={n: StoredFile(sha256=None, size_bytes=p.stat().st_size) for n, p in found.items()},
        owned=False,
    )
