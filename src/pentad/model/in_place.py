"""Models that are opened where they lie, without being pulled."""

from __future__ import annotations

import pathlib
import re
from typing import Final

from pentad.errors import ModelNotFound
from pentad.model.sources.base import PathRef
from pentad.model.sources.choice import name_of
from pentad.model.sources.local import LocalSource
from pentad.model.stored import StoredFile, StoredModel

_PART: Final = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


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


def is_folder_of_models(path: pathlib.Path) -> bool:
    """Whether it is a folder that is no model itself."""
    return path.is_dir() and not (path / "config.json").exists()


def models_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The GGUF files and model folders that lie directly in a folder, by name.

    Of a GGUF file in parts the first stands for all. Raises ModelNotFound where there are none.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    found = [path for path in entries if path.suffix == ".gguf" and _first_part(path.name)]
    found += [path for path in entries if path.is_dir() and (path / "config.json").exists()]
    if not found:
        raise ModelNotFound(
            f"the folder {str(folder)!r} holds no model",
            hint="put .gguf files or model folders with a config.json into it",
            param="models",
        )
    return found


def _first_part(name: str) -> bool:
    part = _PART.search(name)
    return part is None or int(part[1]) == 1
