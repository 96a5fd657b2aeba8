"""Methods of quantization: what each of them does to a layer, on a tiny model and on made-up matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_rounding import tapped

from model_fixtures import tiny_llama_gguf
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.input_rounding import InputRule, fixed, one_range, rounded_inputs
from pentad.execution.quant import dequantize, stored_bytes
from pentad.execution.taps import Tap
from pentad.execution.torch.walk_inputs import rounding
from pentad.model.loading import ModelFiles, open_model
from pentad.model.transforms.base import Unit
from pentad.model.transforms.clipping import Clipped
from pentad.model.transforms.fptq import FPTQ
from pentad.model.transforms.hessian import output_error
from pentad.model.transforms.mixed import Mixed, allocate, divergences
from pentad.model.transforms.mofq import MoFQ
from pentad.model.transforms.os_plus import centred
from pentad.model.transforms.owq import OWQ
from pentad.model.transforms.rptq import RPTQ, clustered
from pentad.model.transforms.smoothquant import SmoothQuant
from pentad.model.transforms.survey import Survey
from pentad.model.trial import Trial

TEXTS = [[(7 * i + j * j) % 60 for i in range(24)] for j in range(4)]
COLUMNS = 600


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFiles]:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    path.write_bytes(tiny_llama_gguf())
    found = open_model(path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def trial(files: ModelFiles) -> Trial:
    texts = [[token % files.spec.vocab_size for token in text] for text in TEXTS]
    kind = registry.load("walk", "torch")
    return Trial(
        spec=files.spec,
        source=files.weights,
        new_walk=lambda given: kind(files.spec, files.weights, given),
        calibration=texts,
        evaluation=texts,
    )


@pytest.fixture(scope="module")
def matrix() -> Floats:
    return np.random.default_rng(0).normal(size=(16, COLUMNS)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs() -> Floats:
    """A few columns carry twenty times what the others do, and are not centred."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(900, COLUMNS)).astype(np.float32)
    x[:, ::100] = x[:, ::100] * 20 + 15
    return x


@pytest.mark.parametrize("rule", [InputRule(bits=8), InputRule(bits=4), "tensor", "columns"])
def test_the_walk_rounds_inputs_as_the_rule_says(rule: InputRule | str, inputs: Floats) -> None:
    low, high = inputs.min(0), inputs.max(0)
    if isinstance(rule, str):
        rule = (one_range if rule == "tensor" else fixed)(low, high, 8)
    see = rounding({"layers.0.q": rule}, 0)
    got = see["q"](torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(got, rounded_inputs(inputs, rule), atol=1e-4)
    assert see["down"](torch.from_numpy(inputs)).numpy() is not None
    step = np.abs(inputs).max() / ((1 << (rule.bits - 1)) - 1) if rule.scale is None else rule.scale.max()
    assert np.abs(got - inputs).max() <= 1.01 * step


@pytest.mark.row("quant-rptq", "mechanism")
def test_clusters_keep_wide_columns_from_narrow_ones(inputs: Floats) -> None:
    low, high = inputs.min(0), inputs.max(0)
    labels = clustered(low, high, 4)
    wide = np.zeros(COLUMNS, bool)
    wide[::100] = True
    assert not set(labels[wide]) & set(labels[~wide])
    assert labels[wide].min() > labels[~wide].max()
    unit = tapped(inputs, np.ones((4, COLUMNS), np.float32))
    tap = unit.taps["layers.0.q"]
    errors = []
    for clusters in (1, 4):
        rule = RPTQ(clusters=clusters, input_bits=6).rule(unit, "layers.0.q", tap)
        assert rule.scale is not None
        assert len(np.unique(rule.scale)) <= clusters
        errors.append(np.square(rounded_inputs(inputs, rule) - inputs)[:, ~wide].mean())
    assert errors[1] < errors[0] / 20


@pytest.mark.row("quant-os-plus", "mechanism")
def test_centred_channels_need_a_smaller_step(inputs: Floats) -> None:
    low, high = inputs.min(0), inputs.max(0)
    errors = [
        np.square(rounded_inputs(inputs, rule) - inputs).mean()
        for rule in (one_range(low, high, 6), centred(low, high, 6))
    ]
    assert errors[1] < errors[0]


@pytest.mark.row("quant-smoothquant", "mechanism")
def test_smoothed_channels_and_weights_share_the_range(trial: Trial) -> None:
    taps = trial.new_walk(trial.calibration).taps(0, trial.source, second_moments=False)
    unit = Unit(spec=trial.spec, layer=0, source=trial.source, taps=taps)
    moved = SmoothQuant(strength=0.5).moved(unit)
    tap, readers = moved.taps["layers.0.up"], ("layers.0.up", "layers.0.gate")
    assert tap.low is not None and tap.high is not None  # noqa: PT018
    largest = np.maximum(-tap.low, tap.high)
    # A later site divides rows of `up`; its columns are told by the gate's and what up had before.
    wide = np.maximum.reduce([np.abs(moved.values[n]).max(0) for n in readers[1:]])
    ratio = largest / np.maximum(wide, 1e-9)
    before = np.maximum(-taps["layers.0.up"].low, taps["layers.0.up"].high)  # type: ignore[operator]
    plain = before / np.abs(unit.values("layers.0.gate")).max(0)
    assert np.log(ratio).std() < 0.8 * np.log(plain).std()


@pytest.mark.row("quant-fptq", "mechanism", claims=(2,))
def test_the_way_of_rounding_inputs_follows_from_their_range(inputs: Floats) -> None:
    method = FPTQ()
    calm = inputs[:, 1:99]
    loud = calm.copy()
    loud[:, 3] *= 60
    ways = []
    for x in (calm, inputs, loud * np.where(np.arange(98) == 3, 10, 1).astype(np.float32)):
        unit = tapped(x, np.ones((4, x.shape[1]), np.float32))
        tap = unit.taps["layers.0.q"]
        ways.append(method.way(tap))
        assert method.rule(unit, "layers.0.q", tap).per_token == (ways[-1] == "token")
    assert ways == ["static", "equalised", "token"]


@pytest.mark.row("quant-owq", "mechanism")
def test_the_columns_that_count_most_stay_whole(inputs: Floats, matrix: Floats) -> None:
    unit = tapped(inputs, matrix)
    gram = unit.taps["layers.0.q"].gram
    assert gram is not None
    errors, loud = {}, np.arange(0, COLUMNS, 100)
    for kept in (0.0, 0.01):
        method = OWQ(kept=kept)
        made = dequantize(method.rewrite(unit)["layers.0.q"])
        errors[kept] = output_error(made - matrix, gram)
        for row in made if kept else ():
            grid = np.unique(np.delete(row, loud))
            assert len(grid) <= 8
            assert np.isin(row[loud], grid).mean() < 0.5
    assert errors[0.01] < 0.5 * errors[0.0]
    assert OWQ(kept=0.01).stored_bits(COLUMNS) <= 3.2


@pytest.mark.row("quant-mofq", "mechanism", claims=(2,))
def test_each_matrix_gets_integers_or_floats_by_its_error() -> None:
    rng = np.random.default_rng(0)
    even = rng.uniform(-1, 1, (16, 256)).astype(np.float32)
    heavy = rng.standard_t(4, (16, 256)).astype(np.float32)
    x = rng.normal(size=(300, 256)).astype(np.float32)
    kinds = [MoFQ(search=False).kind(tapped(x, values), "layers.0.q") for values in (even, heavy)]
    assert kinds == ["symmetric", "floats"]
    for values, kind in zip((even, heavy), kinds, strict=True):
        made = MoFQ().rewrite(tapped(x, values))["layers.0.q"]
        alone = build("transform", Choice.of(f"importance:bits=4,numbers={kind}"))
        assert made.data.tobytes() == alone.rewrite(tapped(x, values))["layers.0.q"].data.tobytes()


@pytest.mark.row("quant-omniquant", "mechanism")
def test_gradients_of_clips_and_factors_are_those_of_the_error() -> None:
    """By differences, on so many codes that rounding hides no slope."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 16)).astype(np.float32)
    x = rng.normal(size=(64, 16)).astype(np.float32)
    gram, columns = x.T @ x, np.exp(rng.normal(size=16) / 4).astype(np.float32)
    ones = np.ones((8, 1), np.float32)
    clip = Clipped(low=ones * np.float32(0.7), high=ones * np.float32(0.6))
    most = 1 << 14
    _, by_column, (by_low, by_high) = clip.gradient(matrix, columns, gram, 8, most)
    step = np.float32(0.01)
    for group in range(8):
        for name, slope in (("low", by_low), ("high", by_high)):
            moved = []
            for sign in (1, -1):
                share = getattr(clip, name).copy()
                share[group] += sign * step
                changed = dataclasses.replace(clip, **{name: share})
                moved.append(changed.gradient(matrix, columns, gram, 8, most)[0])
            assert slope[group, 0] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=0.1, abs=0.5)
    for column in range(0, 16, 3):
        moved = []
        for sign in (1, -1):
            other = columns.copy()
            other[column] *= np.exp(sign * step)
            moved.append(clip.gradient(matrix, other, gram, 8, most)[0])
        assert by_column[column] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=0.1, abs=0.5)


@pytest.mark.row("quant-omniquant", "mechanism")
def test_learnt_clips_err_less_than_none(trial: Trial) -> None:
    exact = trial.exact()
    gaps = [
        trial.run(build("transform", Choice.of(method)), exact).divergence
        for method in ("round-to-nearest:bits=3,group=32", "omniquant:bits=3,group=32,steps=30")
    ]
    assert gaps[1] < 0.8 * gaps[0]


def test_a_trial_of_nothing_finds_nothing(trial: Trial) -> None:
    exact = trial.exact()
    found = trial.run(build("transform", Choice.of("round-to-nearest:format=F32")), exact)
    assert found.divergence == pytest.approx(0, abs=1e-7)
    assert found.perplexity == pytest.approx(found.exact_perplexity)
    assert found.tokens == sum(len(text) - 1 for text in trial.evaluation)


def test_a_trial_rounds_inputs_where_the_method_does(trial: Trial) -> None:
    exact = trial.exact()
    gaps = [
        trial.run(SmoothQuant(input_bits=bits, strength=0, format="Q8_0"), exact).divergence
        for bits in (0, 8, 4)
    ]
    assert gaps[0] < gaps[1] < gaps[2]


def survey(trial: Trial) -> Survey:
    walk = trial.new_walk(trial.calibration)
    return Survey(spec=trial.spec, source=trial.source, walk=walk, needs=Mixed().needs)


def test_every_layer_alone_moves_predictions(trial: Trial) -> None:
    found = divergences(survey(trial), build("transform", Choice.of("round-to-nearest:bits=2,group=32")))
    assert len(found) == trial.spec.layers
    assert min(found) > 0


@pytest.mark.parametrize(
    ("budget", "expected"), [(30, [0, 0, 0]), (40, [0, 1, 0]), (70, [0, 2, 0]), (99, [1, 2, 0])]
)
def test_bytes_go_where_they_help_most(budget: int, expected: list[int]) -> None:
    costs = [[2.0, 1.0, 0.9], [9.0, 3.0, 0.5], [0.1, 0.09, 0.08]]
    sizes = [[10, 30, 90], [10, 20, 50], [10, 50, 90]]
    assert allocate(costs, sizes, budget) == expected


def test_mixed_formats_stay_under_the_budget_and_err_less_than_the_smallest(trial: Trial) -> None:
    method = Mixed(average_bits=5.2).plan(survey(trial))
    matrices = [
        name
        for layer in range(trial.spec.layers)
        for name in Unit(spec=trial.spec, layer=layer, source=trial.source).matrices()
    ]
    taps = trial.new_walk(trial.calibration).taps(0, trial.source, second_moments=True)
    unit = Unit(spec=trial.spec, layer=0, source=trial.source, taps=taps)
    assert len(method.layer_formats) == trial.spec.layers
    assert len(set(method.layer_formats)) > 1
    made = method.rewrite(unit)
    assert {tensor.format for tensor in made.values()} == {method.layer_formats[0]}
    used = sum(
        stored_bytes(method.layer_formats[int(name.split(".")[1])], trial.source.tensor(name).shape)
        for name in matrices
    )
    weights = sum(int(np.prod(trial.source.tensor(name).shape)) for name in matrices)
    assert used <= 5.2 * weights / 8
    with pytest.raises(Infeasible, match=r"the smallest choice takes .* allow more bytes"):
        Mixed(average_bits=4).plan(survey(trial))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("omniquant:format=Q4_0", "choose Q4_1, Q5_1 or bits of integers"),
        ("owq:bits=0", "set bits"),
        ("owq:kept=1", "kept is 1"),
        ("mofq:bits=5", "floats have 3, 4, 6, 8"),
        ("rptq:clusters=0", "clusters is 0"),
        ("smoothquant:strength=2", "strength is 2"),
        ("smoothquant:input_bits=9", "0 leaves inputs as they are"),
        ('mixed:formats=["IQ2_S"]', "choose from Q4_0"),
    ],
)
def test_options_that_make_no_sense_are_refused(method: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        build("transform", Choice.of(method))


def test_statistics_follow_an_order() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    order = rng.permutation(6)
    one, two = (
        Tap(
            rows=20,
            square_sum=np.square(y).sum(0),
            absolute_sum=np.abs(y).sum(0),
            gram=y.T @ y,
            low=y.min(0),
            high=y.max(0),
        )
        for y in (x, np.ascontiguousarray(x[:, order]))
    )
    for field in ("square_sum", "absolute_sum", "gram", "low", "high"):
        np.testing.assert_allclose(getattr(one.ordered(order), field), getattr(two, field), rtol=1e-5)
