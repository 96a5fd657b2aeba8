"""Exported: what a folder or file of another engine's model says of itself, checked before it is served."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pentad.content import MediaKind
from pentad.errors import BadModelFile

MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A model that another engine can load."""

    format: str
    size_bytes: int
    """Of its weights."""
    context_length: int | None = None
    """None where the form does not say."""
    quantization: str | None = None
    """In the engine's own words."""
    devices: int = 1
    """That share it, as it was compiled."""
    media: frozenset[MediaKind] = frozenset()
    """Parts beside text that it takes."""


class ExportReader(Protocol):
    """Reads one form. Raises BadModelFile, naming file and reason, for one that is broken or no such form."""

    def __call__(self, path: pathlib.Path) -> Exported: ...


def manifest(folder: pathlib.Path, name: str) -> Mapping[str, Any]:
    """A JSON object of the folder."""
    path = folder / name
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BadModelFile(f"{path} has {path.stat().st_size} bytes; a manifest has fewer")
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadModelFile(f"{folder} has no {name}", hint="export the model again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}", hint="export the model again") from error
    if not isinstance(found, dict):
        raise BadModelFile(f"{path} is no JSON object", hint="export the model again")
    return found


def part(folder: pathlib.Path, name: object, *, at_least: int = 1) -> int:
    """Size of a file that a manifest names; a name that leads out of the folder is refused."""
    if not isinstance(name, str) or not name or pathlib.PurePath(name).name != name:
        raise BadModelFile(f"the manifest of {folder} names the file {str(name)[:80]!r}")
    path = folder / name
    size = path.stat().st_size if path.is_file() else -1
    if size < at_least:
        wrong = f"is missing in {folder}" if size < 0 else f"has {size} bytes, its manifest says {at_least}"
        raise BadModelFile(f"{name} {wrong}", hint="export the model again, or copy all of its files")
    return size


def whole(value: object, what: str, *, least: int = 1) -> int:
    """A whole number of a manifest."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadModelFile(f"{what} is {str(value)[:40]!r}, must be a whole number of at least {least}")
    return value
