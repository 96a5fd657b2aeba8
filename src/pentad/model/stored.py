"""What the store knows of a model: its files, their digests, where it came from."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from pentad.errors import BadModelFile, InvalidRequest
from pentad.json_text import parse_json
from pentad.model.files.gguf import GgufFile
from pentad.model.files.gguf_parts import part_paths
from pentad.model.files.safetensors import SafetensorsFile
from pentad.model.sources.base import sha256_of

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
Format = Literal["gguf", "safetensors"]
_HEADERS: Final[Mapping[str, type[GgufFile] | type[SafetensorsFile]]] = MappingProxyType(
    {".gguf": GgufFile, ".safetensors": SafetensorsFile}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a stored model."""

    sha256: str | None
    """None for a file that was looked at but never read whole."""
    size_bytes: int

    def __post_init__(self) -> None:
        if self.sha256 is not None and not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r} is no SHA-256")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model that is on this machine. `path` is what `open_model` takes."""

    name: str
    ref: str
    path: pathlib.Path
    format: Format
    files: Mapping[str, StoredFile]
    owned: bool = True
    """Whether the store holds the files; otherwise it only knows where they are."""
    kind: Literal["chat", "embedding"] = "chat"
    licence: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    @property
    def sha256(self) -> str | None:
        """Of the single file, or of all names and digests together; None if one is unknown."""
        if any(file.sha256 is None for file in self.files.values()):
            return None
        if len(self.files) == 1:
            return next(iter(self.files.values())).sha256
        listing = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()


def check_blobs(path: pathlib.Path) -> None:
    """Reads a model's files that lie under their own digest. Raises BadModelFile for one with other bytes.

    Args:
        path: a file, or a folder whose files count. What lies elsewhere has no digest to be held to.
    """
    for file in sorted(path.iterdir()) if path.is_dir() else part_paths(path):
        blob = file.resolve()
        kind, _, digest = blob.name.partition("-")
        if kind != "sha256" or not is_digest(digest):
            continue
        if (found := sha256_of(blob)) != digest:
            raise BadModelFile(
                f"{str(blob)!r} has SHA-256 {found}, not the one that it is named by",
                hint="remove the model with `pentad rm` and pull it again",
            )


def check_extents(paths: Iterable[pathlib.Path]) -> None:
    """Reads the headers of weight files. Raises BadModelFile for one that ends before what it announces."""
    for path in paths:
        opener = _HEADERS.get(path.suffix)
        if opener is None:
            continue
        try:
            opener(path).close()
        except BadModelFile as error:
            raise BadModelFile(
                error.message,
                hint=error.hint or "fetch the file again; it is cut, damaged or of another format",
            ) from error


def checked_name(name: str) -> str:
    """The name itself if it is fit for a file name. Raises InvalidRequest."""
    if not is_name(name):
        raise InvalidRequest(
            f"model name {name!r} is not allowed",
            hint="use lower-case letters, digits, dot, dash and underscore, at most 100",
            param="name",
        )
    return name


def is_name(text: str) -> bool:
    """Whether a text may name a model, and so a file of the store."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in lower-case hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def read_manifest(path: pathlib.Path) -> StoredModel | None:
    """The model that a manifest describes; None when there is none or it is no manifest of ours."""
    try:
        value: dict[str, Any] = parse_json(path.read_bytes())
        value.pop("version")
        files = {file: StoredFile(**entry) for file, entry in value.pop("files").items()}
        model = StoredModel(**(value | {"path": pathlib.Path(value["path"]), "files": files}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return model if model.name == path.stem else None


def write_manifest(path: pathlib.Path, model: StoredModel) -> None:
    """Writes it whole or not at all: to a draft, to the disk, then to its name."""
    value = asdict(model) | {"path": str(model.path), "version": 1}
    draft = path.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the renames in that folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
