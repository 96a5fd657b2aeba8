"""Estimates in files: plain arrays, with the name of the estimator and of the encoder that they go with."""

from __future__ import annotations

import functools
import os
import pathlib
import zipfile
from dataclasses import dataclass
from typing import Final

import numpy as np

from pentad import registry
from pentad.errors import InvalidRequest
from pentad.model.routing.success import StoredEstimate

SUFFIX: Final = ".npz"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """An estimate as it was written."""

    estimate: StoredEstimate
    encoder: str
    """Model of the vectors that it was learned with; others mean something else to it."""
    made: str
    """Differs for each estimate."""


def check_suffix(path: pathlib.Path) -> None:
    """Raises InvalidRequest for another suffix than .npz."""
    if path.suffix != SUFFIX:
        raise InvalidRequest(
            f"{str(path)!r} does not end in {SUFFIX}", hint=f"set --out {path.stem}{SUFFIX}", param="out"
        )


def write_estimate(path: pathlib.Path, estimate: StoredEstimate, *, encoder: str) -> None:
    """Writes the file whole or not at all. Raises what `check_suffix` raises."""
    check_suffix(path)
    part = path.with_name(f".{path.stem}.part{SUFFIX}")
    about = np.array([str(_FORMAT), estimate.kind, encoder])
    np.savez(part, allow_pickle=False, about=about, **estimate.arrays())
    os.replace(part, path)


def read_estimate(path: pathlib.Path) -> Kept:
    """The estimate of a file; it is read once while it stays the same. Raises InvalidRequest."""
    if not path.is_file():
        raise InvalidRequest(
            f"there is no estimate at {str(path)!r}",
            hint="make one of outcomes with pentad train-router",
            param="router.estimate",
        )
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: pathlib.Path, changed_ns: int) -> Kept:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        version, kind, encoder = (str(one) for one in arrays.pop("about"))
        if version != str(_FORMAT) or kind not in registry.known("success"):
            raise ValueError(f"format {version}, kind {kind!r}")
        estimate: StoredEstimate = registry.load("success", kind)().fitted.restored(arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise InvalidRequest(
            f"{str(path)!r} is no estimate of this version: {error}",
            hint="make it anew with pentad train-router",
            param="router.estimate",
        ) from None
    return Kept(estimate=estimate, encoder=encoder, made=str(changed_ns))
