"""Moves between tensors of a layer: it computes what it computed, and rounds better."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from model_fixtures import tiny_llama_gguf
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.execution.quant import dequantize
from pentad.execution.spec import Head
from pentad.execution.taps import Walk
from pentad.model.loading import ModelFiles, open_model
from pentad.model.transforms.base import Overlay, Unit, apply
from pentad.model.transforms.equivalence import scale, sites
from pentad.model.transforms.hessian import output_error
from pentad.model.transforms.quantizing import Moved, Quantizer
from pentad.model.transforms.rotate import Rotate, untied
from pentad.model.transforms.rotation import orthogonal, space_use

TEXTS = [[(7 * i + j * j) % 60 for i in range(24)] for j in range(4)]
MOVING = (
    "awq:bits=3,group=32",
    "smoothquant",
    "smoothquant:norms_only=true",
    "os-plus:input_bits=4",
    "rptq:clusters=4",
    "fptq:small=0,large=1e9",
    "ostquant",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFiles]:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    path.write_bytes(tiny_llama_gguf())
    found = open_model(path)
    yield found
    found.close()


def walk(files: ModelFiles) -> Walk:
    texts = [[token % files.spec.vocab_size for token in text] for text in TEXTS]
    found: Walk = registry.load("walk", "torch")(files.spec, files.weights, texts)
    return found


@pytest.fixture(scope="module")
def unit(files: ModelFiles) -> Unit:
    taps = walk(files).taps(0, files.weights, second_moments=True)
    return Unit(spec=files.spec, layer=0, source=files.weights, taps=taps)


def after(files: ModelFiles, unit: Unit) -> np.ndarray:
    """What the first layer gives in the unit's form, as the second moments of what enters the second."""
    going = walk(files)
    going.advance(0, files.spec, unit.source)
    tap = going.taps(1, files.weights, second_moments=True)["layers.1.q"]
    assert tap.gram is not None
    return tap.gram


def test_a_layer_has_four_sites(unit: Unit) -> None:
    found = {
        site.maker.rpartition(".")[2]: [r.rpartition(".")[2] for r in site.readers] for site in sites(unit)
    }
    assert found == {
        "attn_norm": ["q", "k", "v"],
        "v": ["o"],
        "ffn_norm": ["gate", "up"],
        "up": ["down"],
    }


def test_any_factors_leave_the_layer_as_it_was(files: ModelFiles, unit: Unit) -> None:
    rng = np.random.default_rng(0)
    moved = Moved()
    for site in sites(unit):
        channels = len(site.of_channels(site.tap(unit).square_sum))
        scale(site, unit, moved, np.exp(rng.normal(size=channels)).astype(np.float32))
    now = unit.changed(moved.values, moved.taps)
    np.testing.assert_allclose(after(files, now), after(files, unit), rtol=1e-4, atol=1e-4)
    taken = walk(files).taps(0, now.source, second_moments=True)
    for name, tap in taken.items():
        for field in ("gram", "square_sum", "absolute_sum", "low", "high"):
            told = getattr(now.taps[name], field)
            np.testing.assert_allclose(getattr(tap, field), told, rtol=1e-3, atol=1e-4)


@pytest.mark.row("quant-awq", "mechanism")
@pytest.mark.row("quant-smoothquant", "mechanism")
@pytest.mark.row("quant-os-plus", "mechanism")
@pytest.mark.row("quant-rptq", "mechanism")
@pytest.mark.parametrize("method", MOVING)
def test_what_a_method_moves_leaves_the_layer_as_it_was(method: str, files: ModelFiles, unit: Unit) -> None:
    quantizer: Quantizer = build("transform", Choice.of(method))
    moved = quantizer.moved(unit)
    assert moved.values
    np.testing.assert_allclose(
        after(files, unit.changed(moved.values)), after(files, unit), rtol=1e-4, atol=1e-4
    )


@pytest.mark.row("quant-awq", "mechanism")
def test_scaled_by_activations_a_matrix_errs_less(unit: Unit) -> None:
    """A few columns of the first layer carry far more than the rest, as in real models."""
    factors = np.ones(unit.spec.width, np.float32)
    factors[::7] = 0.05
    loud = {
        name: tap.divided(factors) for name, tap in unit.taps.items() if len(tap.square_sum) == len(factors)
    }
    there = dataclasses.replace(unit, taps={**unit.taps, **loud})
    errors = []
    for method in ("round-to-nearest:bits=3,group=32", "awq:bits=3,group=32,compensate=false,search=false"):
        quantizer: Quantizer = build("transform", Choice.of(method))
        moved = quantizer.moved(there)
        now = there.changed(moved.values, moved.taps)
        made = dequantize(quantizer.rewrite(there)["layers.0.gate"])
        gram = now.taps["layers.0.gate"].gram
        assert gram is not None
        errors.append(output_error(made - now.values("layers.0.gate"), gram))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.row("quant-ostquant", "mechanism")
def test_a_turned_model_computes_the_same_and_fills_the_space_of_codes_better(files: ModelFiles) -> None:
    tied = files.spec.tied_head
    spec = untied(files.spec) if tied else files.spec
    source = files.weights
    if tied:
        source = Overlay(files.weights, {"head": files.weights.tensor("embed").renamed("head")})
    _, turned = apply(Rotate(format="F32", seed=3), spec, source)
    texts = [[token % spec.vocab_size for token in text] for text in TEXTS]
    ends, uses = [], []
    for weights in (source, turned):
        going: Walk = registry.load("walk", "torch")(spec, weights, texts)
        tap = going.taps(0, weights, second_moments=True)["layers.0.up"]
        assert tap.gram is not None and tap.low is not None and tap.high is not None  # noqa: PT018
        uses.append(space_use(tap.gram, tap.rows, tap.low, tap.high))
        for layer in range(spec.layers):
            going.advance(layer, spec, weights)
        ends.append(going)
    compared = ends[1].compared(ends[0])
    assert compared.divergence < 1e-7
    assert compared.loss == pytest.approx(compared.exact_loss, rel=1e-5)
    assert np.isfinite(uses).all()


def test_a_turn_spreads_one_loud_channel_over_all() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 48)).astype(np.float32)
    x[:, 5] *= 40
    turn = orthogonal(48, 1)
    np.testing.assert_allclose(turn @ turn.T, np.eye(48), atol=1e-5)
    uses = [space_use(y.T @ y, len(y), y.min(0), y.max(0)) for y in (x, x @ turn)]
    assert uses[1] > uses[0] + 0.3


def test_a_model_whose_embeddings_are_its_head_is_not_turned(files: ModelFiles) -> None:
    with pytest.raises(Incompatible, match=r"cannot be turned.*choose smoothquant or awq"):
        Rotate().target(dataclasses.replace(files.spec, head=Head(tied=True)))
