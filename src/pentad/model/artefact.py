"""Artefact: what a derived model was made of and how, so that anyone can make it again and compare."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec

from pentad.errors import BadModelFile
from pentad.model.stored import StoredModel

Size = int | tuple[int, ...]
"""One number, or one for each layer where they differ."""
FILE_NAME: Final = "artefact.json"
"""Beside the weights of every derived model."""
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The text that a transform was calibrated on."""

    sha256: str
    """Of the file."""
    windows: int
    window_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a model learnt, and what it was worth on text that it did not learn from."""

    recipe: str
    """As `Choice.of` reads it."""
    data_sha256: str
    steps: int
    batch: int
    window_tokens: int
    seed: int
    teacher: str = ""
    teacher_sha256: str = ""
    loss_before: float = 0.0
    """Nats per held-out token, of the source."""
    loss_after: float = 0.0
    curve: tuple[float, ...] = ()
    """The recipe's loss over the steps, in at most 200 means of equal stretches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """How a model was derived. Equal artefacts have equal weights, byte for byte; after a training, on one
    kind of machine only."""

    source: str
    """Name of the model that it was derived from."""
    source_sha256: str
    transforms: tuple[str, ...]
    """In order, as `Choice.of` reads them."""
    exactness: str
    """The weakest of the transforms'."""
    calibration: Calibration | None = None
    training: Training | None = None
    changed: Mapping[str, tuple[Size, Size]] = field(default_factory=dict)
    """Sizes of the geometry that differ: before and after."""
    version: str = ""
    """Of Pentad."""


def write_artefact(path: pathlib.Path, artefact: Artefact) -> None:
    """Writes it as JSON."""
    path.write_text(json.dumps(asdict(artefact), indent=1) + "\n", encoding="utf-8")


def artefact_of(stored: StoredModel) -> Artefact | None:
    """How a stored model was derived; None for one that was not. Raises like `read_artefact`."""
    return read_artefact(stored.path if stored.path.is_dir() else stored.path.parent)


def read_artefact(folder: pathlib.Path) -> Artefact | None:
    """The artefact beside a model's weights; None for a model that is not derived.

    Raises BadModelFile for a file that is no artefact.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is too large")
        value: Any = msgspec.json.decode(path.read_bytes())
        return msgspec.convert(value, type=Artefact)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise BadModelFile(f"{str(path)!r} is no artefact: {error}") from error
