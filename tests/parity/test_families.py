"""Each family's folder and GGUF file of a tiny random model compute what Hugging Face's own code computes."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import family_cases
import recent_cases
from family_files import Gguf, V, tiny_model, write_folder, write_gguf
from native_support import HERE, divergence, rounded
from pentad.execution.layers import Experts
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import check_cut_sequences, check_mixed_step, ragged

CASES = {**family_cases.CASES, **recent_cases.CASES}
TOLERANCE = 1e-3
NATIVE_DIVERGENCE = 0.02
"""In nats, on average of the tokens: the native kernels multiply in 8 bits. A wrong mapping is far above."""


@dataclass(frozen=True)
class Reference:
    """A tiny model, its logits by text, and where its files are."""

    model: Any
    folder: pathlib.Path
    gguf: pathlib.Path | None

    @functools.cache  # noqa: B019 - lives as long as its module's tests
    def _logits(self, tokens: tuple[int, ...]) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = self.model(torch.tensor([tokens])).logits[0].float().numpy()
            return found

    def logits(self, tokens: list[int]) -> np.ndarray:
        return self._logits(tuple(tokens))

    def opened(self, format: str) -> ModelFiles:
        """The files in that format."""
        path = self.folder if format == "folder" else self.gguf
        assert path is not None
        return open_model(path)


def _forms(*, rows: bool) -> list[Any]:
    """Each case with its folder, and with its GGUF file where it has one."""
    found = []
    for name, case in CASES.items():
        marks = [pytest.mark.row(case.row, "mechanism", claims=case.claims)] if rows and case.row else []
        formats = ("folder", "gguf") if isinstance(case.gguf, Gguf) else ("folder",)
        found += [pytest.param(name, format, id=f"{name}-{format}", marks=marks) for format in formats]
    return found


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    case = CASES[request.param]
    model = tiny_model(case)
    folder = tmp_path_factory.mktemp(request.param)
    write_folder(case, model, folder)
    gguf = write_gguf(case, model, folder / "m.gguf") if isinstance(case.gguf, Gguf) else None
    return Reference(model, folder, gguf)


@pytest.mark.parametrize(("reference", "format"), _forms(rows=True), indirect=["reference"])
def test_logits_equal_the_reference_whole_in_chunks_from_the_cache_and_in_a_batch(
    reference: Reference, format: str
) -> None:
    files = reference.opened(format)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, dtype="float32")
    check_cut_sequences(runner.logits, reference.logits, V, TOLERANCE)
    check_mixed_step(runner.logits, reference.logits, V, TOLERANCE)
    files.close()


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
@pytest.mark.parametrize(("reference", "format"), _forms(rows=False), indirect=["reference"])
def test_native_kernels_come_as_near_as_eight_bits_allow(reference: Reference, format: str) -> None:
    files = reference.opened(format)
    if (part := NativeRunner.supports(files.spec, files.weights)) is not None:
        pytest.skip(f"the native kernels do not compute it: {part}")
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=64, threads=1)
    tokens = np.random.default_rng(3).integers(0, V, 70).tolist()
    expected = reference.logits(tokens)
    blocks = [9, 3, 4, 60, 11]
    parts = [runner.logits(ragged([(tokens[a:b], a, blocks)])) for a, b in ((0, 50), (50, 69), (69, 70))]
    bound = NATIVE_DIVERGENCE
    inner = files.spec.blocks[0].feed_forward
    if isinstance(inner, Experts) and inner.scores == "one_by_one":
        # Whether an expert counts as a rival is a threshold, so that rounding alone moves weights by halves.
        exact = TorchRunner.load(files.spec, rounded(files.weights), num_blocks=64, dtype="float32")
        moved = divergence(expected, exact.logits(ragged([(tokens, 0, blocks)])))
        bound = max(bound, 2 * float(moved.mean()))
    assert divergence(expected, np.concatenate(parts)).mean() < bound
    runner.close()
    files.close()
