"""Certificate: what was measured of a model beside its source, sealed against changes.

    models/certificates/<digest of the model>-<key of the settings>.json

The file is canonical JSON: keys sorted, no spaces. It holds the SHA-256 of all the rest, the digests of both
models included, so a certificate that was edited, or that stands beside other bytes, is noticed. It is no
signature: who edits on purpose can seal anew, and `pentad certify --check` measures again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import msgspec

from pentad.errors import BadModelFile
from pentad.model.certification.base import Measured
from pentad.model.store_folders import StoreFolders
from pentad.model.stored import sync_folder

FOLDER: Final = "certificates"
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A sealed one. `sealed` makes it."""

    model: str
    """Name at the time; the digest is what counts."""
    model_sha256: str
    source: str
    source_sha256: str
    settings: Mapping[str, str]
    """Of the engine, as far as they change answers: how the KV cache is kept ...; empty: the usual."""
    data: Mapping[str, str]
    """SHA-256 of the evaluation data by name."""
    evaluation: Mapping[str, str | int]
    """Where these data lay, and how much of the text was read."""
    command: str
    """What measures it again."""
    seed: int
    machine: Mapping[str, str]
    measured: Mapping[str, Measured]
    """By metric, as it was chosen."""
    pentad: str
    """Version."""
    version: int = 1
    sha256: str = field(default="")
    """Of all the rest."""

    def value(self, metric: str) -> Measured | None:
        """Of the metric of that name, whatever its options."""
        found = (each for name, each in self.measured.items() if name.partition(":")[0] == metric)
        return next(found, None)


def sealed(certificate: Certificate) -> Certificate:
    """With the digest of its content."""
    return replace(certificate, sha256=hashlib.sha256(_content(certificate)).hexdigest())


def settings_key(settings: Mapping[str, str]) -> str:
    """Names the settings in a file name."""
    return hashlib.sha256(_canonical(dict(settings))).hexdigest()[:16] if settings else "usual"


def certificate_path(folders: StoreFolders, model_sha256: str, settings: Mapping[str, str]) -> pathlib.Path:
    """Where the certificate of a model under settings is, or would be."""
    return folders.root / FOLDER / f"{model_sha256}-{settings_key(settings)}.json"


def write_certificate(folders: StoreFolders, certificate: Certificate) -> pathlib.Path:
    """Writes it whole or not at all; a former one of the same model and settings is replaced."""
    folders.folder(FOLDER)
    path = certificate_path(folders, certificate.model_sha256, certificate.settings)
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as out:
        out.write(_canonical(asdict(certificate)) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
    sync_folder(path.parent)
    return path


def read_certificate(
    folders: StoreFolders, model_sha256: str, settings: Mapping[str, str]
) -> Certificate | None:
    """The certificate of a model under settings; None where there is none.

    Raises BadModelFile for one that was changed, or is of another model or of other settings.
    """
    path = certificate_path(folders, model_sha256, settings)
    if not path.is_file():
        return None
    try:
        data = path.read_bytes()
        if len(data) > _MAX_BYTES:
            raise ValueError("it is too large")
        found: Certificate = msgspec.json.decode(data, type=Certificate, strict=True)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise _refused(path, f"is no certificate: {error}") from error
    if _canonical(asdict(found)) + b"\n" != data or sealed(found).sha256 != found.sha256:
        raise _refused(path, "was changed after it was written")
    if found.model_sha256 != model_sha256 or dict(found.settings) != dict(settings):
        raise _refused(path, f"is that of another model ({found.model!r}) or of other settings")
    return found


def remove_certificates(folders: StoreFolders, model_sha256: str) -> None:
    """Those of a model that is gone, whatever the settings."""
    for path in (folders.root / FOLDER).glob(f"{model_sha256}-*.json"):
        path.unlink(missing_ok=True)


def _refused(path: pathlib.Path, why: str) -> BadModelFile:
    return BadModelFile(
        f"the certificate {path.name!r} {why}",
        hint="measure the model again with pentad certify",
    )


def _content(certificate: Certificate) -> bytes:
    return _canonical({k: v for k, v in asdict(certificate).items() if k != "sha256"})


def _canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
