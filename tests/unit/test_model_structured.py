"""Structured pruning: columns, heads and layers really go, and what stays computes as it did."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_fixtures import tiny_llama, tiny_llama_gguf, write_llama_folder
from native_support import HERE, ROW_BY_ROW, divergence, random_weights
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.native.runner import NativeRunner
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.taps import Tap
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.uniform import uniform_spec
from pentad.model.artefact import Artefact
from pentad.model.compression import CalibrationText, compress
from pentad.model.families.describe import with_widths
from pentad.model.loading import open_model
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.model.transforms.drop_layers import influence
from pentad.model.transforms.widths import STEP, common_width, shared_widths
from pentad.model.transforms.ziplm import ZipLM, elimination
from ragged_batches import whole

Make = Callable[..., tuple[StoredModel, Artefact]]
TOKENS = list(range(3, 43))
TEXT = "hello world hello low well word lower hello " * 60


@pytest.fixture(params=["gguf", "folder"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(tmp_path: pathlib.Path, kind: str) -> Make:
    """Compresses the tiny model, which has 2 layers of 64 columns, 4 heads and 2 key/value heads."""
    store = ModelStore(tmp_path / "home", catalogue={})
    if kind == "gguf":
        source = tmp_path / "tiny.gguf"
        source.write_bytes(tiny_llama_gguf())
    else:
        source = write_llama_folder(tmp_path / "tiny")
    store.pull(str(source), name="tiny")
    text = tmp_path / "text.txt"
    text.write_text(TEXT)

    def compressed(*methods: str) -> tuple[StoredModel, Artefact]:
        calibration = CalibrationText(path=text, windows=2, window_tokens=32)
        choices = [Choice.of(method) for method in methods]
        return compress(
            store, "tiny", "small", choices, calibration=calibration, tell=lambda done, total: None
        )

    compressed.store = store  # type: ignore[attr-defined]
    return compressed


def logits(path: pathlib.Path) -> np.ndarray:
    files = open_model(path)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=8, dtype="float32")
    found = runner.logits(whole(TOKENS))
    runner.close()
    return found


def spec_of(made: StoredModel) -> ModelSpec:
    return open_model(made.path).spec


def widths(spec: ModelSpec) -> list[int]:
    return [block.feed_forward.width for block in spec.blocks if block.feed_forward is not None]


@pytest.mark.row("prune-llm-pruner", "mechanism")
@pytest.mark.parametrize("method", ["llm-pruner", "flap", "ziplm"])
def test_columns_and_heads_go_from_every_matrix_that_they_stand_in(make: Make, method: str) -> None:
    made, artefact = make(f"{method}:ratio=0.33,kv_heads=1,even=true,format=F32")
    spec = spec_of(made)
    assert (spec.heads, spec.kv_heads, widths(spec)) == (2, 1, [32, 32])
    assert artefact.changed["kv_heads"] == (2, 1)
    assert '"widths"' not in artefact.transforms[0]
    assert "widths=[32, 32]" in artefact.transforms[0]
    assert np.isfinite(logits(made.path)).all()


@pytest.mark.row("prune-flap", "mechanism")
def test_what_stays_are_the_rows_and_columns_of_the_source(make: Make) -> None:
    made, _ = make("flap:ratio=0.22,even=true,format=F32")
    before = open_model(make.store.find("tiny").path).weights  # type: ignore[attr-defined]
    after = open_model(made.path).weights
    old, new = (dequantize(w.tensor("layers.1.up")) for w in (before, after))
    rows = [int(np.flatnonzero((old == row).all(1))[0]) for row in new]
    assert rows == sorted(rows)
    for part in ("gate", "down"):
        whole_part, found = (dequantize(w.tensor(f"layers.1.{part}")) for w in (before, after))
        np.testing.assert_array_equal(found, whole_part[:, rows] if part == "down" else whole_part[rows])


@pytest.mark.row("prune-flap", "mechanism")
def test_biases_stand_for_the_mean_of_what_is_gone(make: Make) -> None:
    plain, _ = make("flap:ratio=0.22,even=true,format=F32,bias=false")
    without = logits(plain.path)
    source = logits(make.store.find("tiny").path)  # type: ignore[attr-defined]
    made, _ = make("flap:ratio=0.22,even=true,format=F32")
    block = spec_of(made).blocks[0]
    assert block.feed_forward is not None
    assert block.feed_forward.bias  # type: ignore[union-attr]
    assert np.square(logits(made.path) - source).sum() < np.square(without - source).sum()


@pytest.mark.row("prune-flap", "mechanism")
def test_layers_may_keep_unequal_widths(make: Make, kind: str) -> None:
    method = "llm-pruner:format=F32,widths=[32, 64]"
    if kind == "folder":
        with pytest.raises(
            Incompatible, match=r"give all layers one intermediate_size, not 2; set .*even=true"
        ):
            make(method)
        return
    made, artefact = make(method)
    assert widths(spec_of(made)) == [32, 64]
    assert artefact.changed["ffn_width"] == (64, (32, 64))
    whole_layer = open_model(make.store.find("tiny").path).weights  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        dequantize(open_model(made.path).weights.tensor("layers.1.up")),
        dequantize(whole_layer.tensor("layers.1.up")),
    )
    assert np.isfinite(logits(made.path)).all()


def test_a_layer_that_is_named_goes_and_those_behind_it_move_up(make: Make) -> None:
    made, artefact = make("drop-layers:layers=[0]", "round-to-nearest:format=F16")
    before = open_model(make.store.find("tiny").path).weights  # type: ignore[attr-defined]
    after = open_model(made.path)
    assert after.spec.layers == 1
    assert artefact.changed == {"layers": (2, 1)}
    for part in ("q", "down"):
        np.testing.assert_array_equal(
            dequantize(after.weights.tensor(f"layers.0.{part}")),
            dequantize(before.tensor(f"layers.1.{part}")).astype(np.float16),
        )


def test_the_layer_that_turns_the_states_least_is_found(make: Make) -> None:
    made, artefact = make("drop-layers")
    assert spec_of(made).layers == 1
    assert artefact.transforms[0] in ("drop-layers:count=1,layers=[0]", "drop-layers:count=1,layers=[1]")
    rng = np.random.default_rng(0)
    states = rng.normal(size=(50, 8)).astype(np.float32)
    moved = rng.normal(size=(50, 8)).astype(np.float32)
    assert influence(states, 3 * states) == pytest.approx(0, abs=1e-6)
    assert influence(states, states + moved / 9) < influence(states, states + moved)


@pytest.mark.row("prune-ziplm", "mechanism")
def test_what_columns_cost_together_is_what_the_outcome_loses_without_them() -> None:
    rng = np.random.default_rng(5)
    entered = rng.normal(size=(300, 24)) @ rng.normal(size=(24, 24))
    matrix, moments = rng.normal(size=(8, 24)), entered.T @ entered
    costs = elimination(matrix, moments, 6)
    order = np.argsort(costs, kind="stable")
    for gone in (6, 12, 18):
        kept = np.sort(order[gone:])
        best = np.linalg.lstsq(entered[:, kept], entered @ matrix.T, rcond=None)[0]
        lost = np.square(entered @ matrix.T - entered[:, kept] @ best).sum()
        assert np.sort(costs)[:gone].sum() == pytest.approx(lost, rel=1e-6)


@pytest.mark.row("prune-ziplm", "mechanism")
def test_what_stays_is_solved_for_the_same_outcome() -> None:
    rng = np.random.default_rng(6)
    entered = (rng.normal(size=(300, 64)) @ rng.normal(size=(64, 64))).astype(np.float32)
    matrix, kept = rng.normal(size=(8, 64)).astype(np.float32), np.arange(0, 64, 2)
    sums = np.square(entered).sum(0)
    tap = Tap(rows=300, square_sum=sums, absolute_sum=sums, gram=entered.T @ entered)
    found, shift = ZipLM(damping=1e-6).narrowed(matrix, kept, tap)
    best = np.linalg.lstsq(entered[:, kept], entered @ matrix.T, rcond=None)[0]
    assert shift is None
    np.testing.assert_allclose(found, best.T, atol=1e-2)


def test_columns_go_where_scores_are_lowest_over_all_layers() -> None:
    spec, columns = tiny_llama(), 3 * 32
    high, low = np.arange(64, dtype=np.float32) + 100, np.arange(64, dtype=np.float32)
    assert shared_widths(spec, [high, low], 32 * columns) == (64, 32)
    assert shared_widths(spec, [high, high], 64 * columns) == (32, 32)
    assert common_width(spec, 64 * columns) == 32
    assert STEP == 32


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("flap:ratio=0.9", "do not have so many parameters to lose; set ratio lower"),
        ("flap:kv_heads=3", "has 2 key/value heads, not 3; set kv_heads to 1 to 2"),
        ("flap:widths=[32]", "1 widths were given for the 2 layers"),
        ("flap:widths=[32, 96]", "a feed-forward of 64 columns in 'tiny' cannot keep 96"),
        ("drop-layers:count=2", "has 2 layers, of which .* cannot go; set count to 1 to 1"),
    ],
)
def test_what_cannot_go_is_refused_before_any_work(method: str, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        build("transform", Choice.of(method)).target(tiny_llama())


def test_a_ratio_that_takes_all_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"ratio is 1\.0, must be above 0 and below 1"):
        build("transform", Choice.of("flap:ratio=1"))


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
@pytest.mark.row("prune-flap", "mechanism")
@pytest.mark.parametrize("biases", [frozenset(), frozenset({"ffn", "out", "qkv"})], ids=["plain", "biased"])
def test_layers_of_unequal_width_compute_the_same_on_the_native_kernels(biases: Any) -> None:
    sizes: dict[str, Any] = {"heads": 2, "kv_heads": 1, "head_dim": 32, "ffn_width": 96, "biases": biases}
    spec = uniform_spec(
        name="m",
        family="llama",
        vocab_size=96,
        layers=3,
        width=64,
        context_length=64,
        positions=Rope(dim=32),
        **sizes,
    )
    spec = with_widths(spec, (96, 32, 64))
    weights = random_weights(spec, "Q8_0")
    reference = TorchRunner.load(spec, weights, num_blocks=8, dtype="float32")
    runner = NativeRunner.load(spec, weights, num_blocks=8, threads=1, kernels=ROW_BY_ROW)
    assert divergence(reference.logits(whole(TOKENS)), runner.logits(whole(TOKENS))).max() < 0.01
    runner.close()
    reference.close()
