"""Magnitude pruning: the smallest weights of a matrix go, wherever they stand, also through the store."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from model_fixtures import tiny_llama_gguf
from pentad.choice import Choice
from pentad.execution.quant import dequantize
from pentad.model.compression import compress
from pentad.model.loading import open_model
from pentad.model.store import ModelStore


@pytest.mark.row("prune-magnitude", "mechanism")
def test_the_smallest_half_of_every_matrix_is_zero_in_the_stored_model(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(tiny_llama_gguf())
    store = ModelStore(tmp_path / "home", catalogue={})
    store.pull(str(source), name="tiny")
    method = Choice.of("magnitude:sparsity=0.5,format=F32")
    made, _ = compress(store, "tiny", "pruned", [method], tell=lambda done, total: None)
    before, after = open_model(source), open_model(made.path)
    for name in before.weights.names():
        old, new = dequantize(before.weights.tensor(name)), dequantize(after.weights.tensor(name))
        if not name.startswith("layers.") or old.ndim != 2:
            np.testing.assert_array_equal(new, old)
            continue
        gone = new == 0
        assert gone.sum() == old.size // 2
        assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()
        np.testing.assert_array_equal(new[~gone], old[~gone])
