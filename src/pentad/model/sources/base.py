"""References to models, what a source hands over, and the file names that it may hand over."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final, Protocol

from pentad.errors import Infeasible, InvalidRequest

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in total, None while the total is unknown."""

CHUNK_BYTES: Final = 1 << 20
MODEL_SUFFIXES: Final = (".gguf", ".safetensors", ".json", ".txt", ".jinja")
"""Only such files are ever taken from a source: no pickles, no code."""

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
_PYPI: Final = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.!+_-]{1,64})"
    r"(?:/(?P<member>.{1,400}))?"
)
_HUB: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,120}))?(?::(?P<file>.{1,400}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiRef:
    """`pypi:package==version[/member]`: a model inside a wheel."""

    package: str
    version: str
    member: str | None = None
    """A file or folder inside the wheel; None takes the model that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRef:
    """`hf:org/name[@revision][:file]`: a repository of the hub, or one file of it."""

    repo: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRef:
    """A file or folder of this machine, used where it lies."""

    path: pathlib.Path


Ref = PypiRef | HubRef | PathRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Files that a source brought, ready to be taken over or referenced.

    `owned` files lie in the working folder and may be moved; others stay where they are.
    """

    files: Mapping[str, pathlib.Path]
    """Name inside the model to where it lies now."""
    root: pathlib.Path | None = None
    """For files that stay: the file or folder to open."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What was really fetched, e.g. the resolved revision."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Name to SHA-256 of the files that were read whole already."""

    @property
    def owned(self) -> bool:
        return self.root is None


class Source(Protocol):
    """One kind of origin."""

    def fetch(self, work: pathlib.Path, wanted: frozenset[str] | None, progress: Progress, /) -> Fetched:
        """Brings the model's files.

        Args:
            work: a private folder that outlives an interruption, for partial downloads.
            wanted: the file names to take, if they are known; None takes what makes up a model.
            progress: told about every chunk.

        Raises:
            ModelNotFound: the origin has no such thing.
            Unavailable: the origin cannot be reached; what came so far is kept.
            Infeasible: the disk is full; what came so far is removed.
            BadModelFile: what came is not what was announced.
        """
        ...


def parse_ref(text: str) -> Ref:
    """The reference that a text stands for. Raises InvalidRequest naming the accepted forms."""
    if "\0" in text:
        raise InvalidRequest(f"model reference {text!r} holds a NUL character", param="model")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "pypi" and (match := _PYPI.fullmatch(rest)):
        member = match["member"]
        return PypiRef(
            package=match["package"],
            version=match["version"],
            member=member and safe_name(member.rstrip("/")),
        )
    if colon and scheme == "hf" and (match := _HUB.fullmatch(rest)):
        file = match["file"]
        return HubRef(repo=match["repo"], revision=match["revision"], file=file and safe_name(file))
    if scheme in ("pypi", "hf") and colon:
        raise InvalidRequest(f"model reference {text!r} is not understood", hint=FORMS, param="model")
    return PathRef(path=pathlib.Path(text).expanduser())


FORMS: Final = "use pypi:package==version[/member], hf:org/name[@revision][:file], or a path"


def safe_name(name: str) -> str:
    """The name itself if it is a plain relative path, at most three parts deep, all visible.

    Raises InvalidRequest for anything that could leave the folder it is put in.
    """
    parts = name.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
        raise InvalidRequest(f"file name {name!r} is not a plain relative path", param="model")
    return name


@contextmanager
def disk_full_is_infeasible(folder: pathlib.Path) -> Iterator[None]:
    """Turns a full disk into an error that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise no_space(folder) from error


def no_space(folder: pathlib.Path, needed_bytes: int | None = None) -> Infeasible:
    """The error for a disk that is too small for what should go there."""
    status = os.statvfs(folder)
    free_mb = status.f_bavail * status.f_frsize / 1e6
    needs = "more space is needed" if needed_bytes is None else f"{needed_bytes / 1e6:.0f} MB are needed"
    return Infeasible(
        f"{needs} in {str(folder)!r}, {free_mb:.0f} MB are free",
        hint="free some, remove models with `pentad rm`, or set PENTAD_HOME to a larger disk",
    )


def require_space(folder: pathlib.Path, needed_bytes: int) -> None:
    """Raises Infeasible before a write that cannot end well."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < needed_bytes:
        raise no_space(folder, needed_bytes)


def copy_exactly(source: IO[bytes], target: pathlib.Path, size_bytes: int) -> int:
    """Copies at most `size_bytes` and tells how many came; flushed to disk."""
    done = 0
    with target.open("wb") as out:
        while chunk := source.read(min(CHUNK_BYTES, size_bytes - done)):
            out.write(chunk)
            done += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return done


def sha256_of(path: pathlib.Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwatched(done_bytes: int, total_bytes: int | None, /) -> None:
    """Progress that nobody watches."""
    del done_bytes, total_bytes
