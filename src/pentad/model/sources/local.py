"""A model that lies on this machine already: looked at and referenced, never copied."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from pentad.errors import BadModelFile, ModelNotFound
from pentad.model.files.gguf_parts import part_paths
from pentad.model.sources.base import MODEL_SUFFIXES, Fetched, PathRef, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """Refers to a GGUF file or a Hugging Face folder where it lies."""

    ref: PathRef

    def fetch(self, _work: pathlib.Path, _wanted: frozenset[str] | None, progress: Progress, /) -> Fetched:
        """See `Source.fetch`."""
        files = self.look()
        size_bytes = sum(path.stat().st_size for path in files.values())
        progress(size_bytes, size_bytes)
        return Fetched(files=files, root=self.ref.path.absolute())

    def look(self) -> dict[str, pathlib.Path]:
        """The model's files by name. Raises ModelNotFound or BadModelFile."""
        path = self.ref.path
        if path.is_file():
            if path.suffix != ".gguf" and not _begins_as_gguf(path):
                raise BadModelFile(
                    f"{str(path)!r} is no GGUF file", hint="give a .gguf file or a model folder"
                )
            files = {part.name: part for part in part_paths(path)}
            if missing := [str(part) for part in files.values() if not part.is_file()]:
                raise BadModelFile(
                    f"the part {missing[0]!r} of the model is missing",
                    hint=f"bring all {len(files)} parts into one folder",
                )
            return files
        if not path.is_dir():
            raise ModelNotFound(f"there is no file or folder {str(path)!r}", param="model")
        files = {p.name: p for p in sorted(path.iterdir()) if p.is_file() and p.name.endswith(MODEL_SUFFIXES)}
        if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
            raise BadModelFile(
                f"{str(path)!r} holds no config.json with .safetensors files",
                hint="give a .gguf file or a Hugging Face folder; pickled weights are not read",
            )
        return files


def _begins_as_gguf(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
