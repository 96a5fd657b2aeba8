"""One file over HTTP: resumed where it stopped, checked against its digest before it is used."""

from __future__ import annotations

import os
import pathlib
from typing import Final

import requests

from pentad.errors import BadModelFile, ModelNotFound, Unavailable
from pentad.model.sources.base import (
    Progress,
    disk_full_is_infeasible,
    require_space,
    sha256_of,
)

ATTEMPTS: Final = 4
CHUNK_BYTES: Final = 1 << 16
"""How much a broken connection may lose of what had arrived."""
TIMEOUT_S: Final = (15.0, 60.0)
"""To connect, and between two chunks."""


def download(
    session: requests.Session,
    url: str,
    target: pathlib.Path,
    sha256: str,
    progress: Progress,
    *,
    size_bytes: int | None = None,
) -> None:
    """Brings `url` to `target`, whose bytes then have that SHA-256.

    The bytes collect in `target` + `.part`, which outlives an interruption: the next call asks
    only for the rest, and starts over if that does not add up to the digest.

    Args:
        size_bytes: as declared; None where nobody does.

    Raises:
        Unavailable: the connection failed repeatedly; the part is kept.
        ModelNotFound: the address answers that there is no such file.
        Infeasible: the disk is full; the part is removed.
        BadModelFile: the bytes have another digest.
    """
    if target.exists() and sha256_of(target) == sha256:
        return
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    found = _collect(session, url, part, progress)
    if found != sha256 and resumed:  # what was kept was no part of this file
        part.unlink()
        found = _collect(session, url, part, progress)
    if found != sha256:
        size = part.stat().st_size
        part.unlink()
        short = "" if size_bytes in (None, size) else f"{size} bytes instead of {size_bytes} and "
        raise BadModelFile(
            f"{target.name!r} has {short}SHA-256 {found}, expected {sha256}; nothing was kept",
            hint="pull again; if it happens twice, the file was changed at its origin",
        )
    part.replace(target)


def _collect(session: requests.Session, url: str, part: pathlib.Path, progress: Progress) -> str:
    """Asks until the whole is there. Returns its SHA-256."""
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            with disk_full_is_infeasible(part.parent):
                _attempt(session, url, part, progress)
            return sha256_of(part)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            failure = error
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt | Unavailable):
                part.unlink(missing_ok=True)
            raise
    kept = part.stat().st_size if part.exists() else 0
    raise Unavailable(
        f"the download broke off {ATTEMPTS} times ({type(failure).__name__})",
        hint=f"check the connection and pull again: {kept / 1e6:.1f} MB are kept",
    ) from failure


def _attempt(session: requests.Session, url: str, part: pathlib.Path, progress: Progress) -> None:
    """One request for what is missing. Returns when the announced end is reached."""
    have = part.stat().st_size if part.exists() else 0
    # A compressed transfer would make byte positions, and with them resuming, meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == 416:  # nothing is missing, or the part is longer than the file
            return
        _check_status(response)
        resumed = response.status_code == 206 and _starts_at(response, have)
        done = have if resumed else 0
        left = _length(response)
        total = None if left is None else done + left
        if left is not None:
            require_space(part.parent, left)
        with part.open("ab" if resumed else "wb") as out:
            for chunk in response.iter_content(CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                progress(done, total)
            out.flush()
            os.fsync(out.fileno())
        if total is not None and done < total:
            raise requests.ConnectionError(f"the connection ended at byte {done} of {total}")


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in (404, 410):
        raise ModelNotFound(f"there is no file at the address that the origin gave (HTTP {status})")
    if status >= 500 or status in (408, 429):
        raise requests.ConnectionError(f"HTTP {status}")
    if status >= 400:
        raise Unavailable(f"the origin refused the download (HTTP {status})", hint="check its credentials")


def _starts_at(response: requests.Response, position: int) -> bool:
    return response.headers.get("Content-Range", "").replace("=", " ").startswith(f"bytes {position}-")


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None
