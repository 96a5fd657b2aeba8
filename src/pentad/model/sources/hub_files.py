"""Files of a hub repository: what the hub declares of them, bringing the large ones, checking all."""

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import requests

from pentad.errors import BadModelFile
from pentad.model.sources.base import Progress, disk_full_is_infeasible, sha256_of
from pentad.model.sources.download import download

_SHA1 = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file as the hub lists it."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None
    """Declared for files that the hub keeps outside of git: all weights are."""


def list_files(repo: str, revision: str | None) -> list[HubFile]:
    """The files of a repository, in one request. Raises what `huggingface_hub` does."""
    import huggingface_hub

    info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    return [
        HubFile(
            name=entry.rfilename,
            size_bytes=entry.size,
            sha256=None if entry.lfs is None else entry.lfs.sha256,
        )
        for entry in info.siblings or ()
    ]


def bring_large(
    repo: str,
    revision: str | None,
    files: Iterable[HubFile],
    work: pathlib.Path,
    progress: Progress,
    *,
    session: Callable[[], requests.Session] = requests.Session,
) -> int:
    """Puts the files of declared digest into the hub's cache; its own library links them afterwards.

    That library begins a broken transfer anew, which for gigabytes over a poor line never ends. Here
    it goes on where it stopped, and no file gets its final name before its digest is right.

    Args:
        work: a private folder that outlives an interruption.
        progress: told bytes over all of these files.

    Returns: bytes of these files.

    Raises: see `download`.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    large = [file for file in files if file.sha256 is not None and _SHA256.fullmatch(file.sha256)]
    total = sum(file.size_bytes or 0 for file in large)
    blobs = pathlib.Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "blobs")
    done = 0
    with session() as opened:
        opened.headers.update(build_hf_headers())
        for file in large:
            assert file.sha256 is not None, "chosen so"
            blob, before = blobs / file.sha256, done
            if not blob.exists():
                url = huggingface_hub.hf_hub_url(repo, file.name, revision=revision)
                target = work / file.sha256
                download(
                    opened,
                    url,
                    target,
                    file.sha256,
                    lambda now, whole, before=before: progress(before + now, total or whole),  # type: ignore[misc]
                    size_bytes=file.size_bytes,
                )
                with disk_full_is_infeasible(work):
                    _move(target, blob)
            done += file.size_bytes or blob.stat().st_size
            progress(done, max(total, done))
    return done


def _move(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames, also to another disk, with nothing half-written under the final name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{source.parent.name}.incomplete")
    try:
        shutil.move(source, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def damaged_blobs(files: Mapping[str, pathlib.Path]) -> tuple[dict[str, str], list[pathlib.Path]]:
    """Every file's SHA-256, and the blobs of those whose bytes are not what the hub declared.

    The hub's cache names a blob by what was declared: a SHA-256, or the SHA-1 of a git blob (some
    mirrors: of the bytes). Files that lie there under another name cannot be told.
    """
    digests, damaged = {}, []
    for name, path in files.items():
        blob = path.resolve()
        digests[name] = sha256_of(blob)
        declared = blob.name
        if _SHA256.fullmatch(declared):
            sound = digests[name] == declared
        elif _SHA1.fullmatch(declared):
            data = blob.read_bytes()  # only small files are kept in git
            sound = declared in (_sha1(b"blob %d\0" % len(data) + data), _sha1(data))
        else:
            sound = True
        if not sound:
            damaged.append(blob)
    return digests, damaged


def refuse_damaged(repo: str, damaged: Iterable[pathlib.Path], files: Mapping[str, pathlib.Path]) -> None:
    """Raises BadModelFile naming the files whose blobs are damaged."""
    blobs = set(damaged)
    if names := [name for name, path in files.items() if path.resolve() in blobs]:
        raise BadModelFile(
            f"{', '.join(names)} of {repo!r} has other bytes than the hub declares",
            hint="pull again with a connection; if it happens twice, a proxy or the origin changes the file",
        )


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
