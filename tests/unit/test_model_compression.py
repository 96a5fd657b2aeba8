"""compress: transforms through the store, resumed after any kill with the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib

import numpy as np
import pytest
from test_transforms import Arrays

from model_fixtures import tiny_llama, tiny_llama_gguf, write_llama_folder
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import BadModelFile, Incompatible, InvalidRequest, UnknownName
from pentad.execution.quant import dequantize
from pentad.execution.spec import Head, Rope
from pentad.execution.taps import Gradient, Tap
from pentad.execution.uniform import uniform_spec
from pentad.model import compression, derivation
from pentad.model.artefact import Artefact, read_artefact
from pentad.model.compression import CalibrationText, compress
from pentad.model.loading import open_model
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.model.transforms.base import ModelTransform, Unit, apply
from pentad.model.transforms.wanda import Wanda


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.fixture(params=["gguf", "folder"])
def store(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> ModelStore:
    store = ModelStore(tmp_path / "home", catalogue={})
    if request.param == "gguf":
        source = tmp_path / "tiny.gguf"
        source.write_bytes(tiny_llama_gguf())
    else:
        source = write_llama_folder(tmp_path / "tiny")
    store.pull(str(source), name="tiny")
    return store


def make(
    store: ModelStore, *methods: str, stop: int | None = None, out: str = "small"
) -> tuple[StoredModel, Artefact]:
    def tell(done: int, total: int) -> None:
        if done == stop:
            raise Killed

    return compress(store, "tiny", out, [Choice.of(m) for m in methods], tell=tell)


def weights(store: ModelStore, name: str) -> dict[str, np.ndarray]:
    files = open_model(store.find(name).path)
    return {each: dequantize(files.weights.tensor(each)) for each in files.weights.names()}


def test_matrices_are_rounded_and_everything_else_stays(store: ModelStore) -> None:
    made, artefact = make(store, "round-to-nearest:format=F16")
    before, after = weights(store, "tiny"), weights(store, "small")
    assert before.keys() == after.keys()
    for name, values in before.items():
        matrix = name.startswith("layers.") and values.ndim == 2
        np.testing.assert_array_equal(after[name], values.astype(np.float16) if matrix else values)
    assert read_artefact(made.path if made.path.is_dir() else made.path.parent) == artefact
    assert artefact.transforms[0].startswith('round-to-nearest:format="F16",')
    assert (artefact.source, artefact.exactness) == ("tiny", "lossy")


def test_a_changed_geometry_reaches_the_file(store: ModelStore) -> None:
    _, artefact = make(store, "kv-pooling:kv_heads=1")
    spec = open_model(store.find("small").path).spec
    assert spec.kv_heads == 1
    assert artefact.changed == {"kv_heads": (2, 1)}


def test_transforms_follow_one_another(store: ModelStore) -> None:
    make(store, "kv-pooling:kv_heads=1", "round-to-nearest:format=F16")
    assert weights(store, "small")["layers.0.k"].dtype == np.float32
    files = open_model(store.find("small").path)
    assert files.spec.kv_heads == 1
    assert files.weights.tensor("layers.0.k").format == "F16"


def test_killed_at_any_unit_it_goes_on_and_ends_with_the_same_bytes(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = make(store, "round-to-nearest:format=F16", out="whole")
    units = open_model(store.find("tiny").path).spec.layers + 1
    rewritten: list[int | None] = []
    kind = registry.load("transform", "round-to-nearest")
    plain = kind.rewrite
    monkeypatch.setattr(kind, "rewrite", lambda self, unit: rewritten.append(unit.layer) or plain(self, unit))
    for stop in range(units + 1):
        with pytest.raises(Killed):
            make(store, "round-to-nearest:format=F16", stop=stop)
    made, _ = make(store, "round-to-nearest:format=F16")
    assert rewritten == [None, *range(units - 1)], "no unit is made twice"
    assert made.sha256 == whole.sha256
    assert not list((store.root / "partial").iterdir()), "nothing is left behind"


def test_a_job_interrupted_under_another_name_is_the_same_job(store: ModelStore) -> None:
    with pytest.raises(Killed):
        make(store, "round-to-nearest:format=F16", stop=1, out="first")
    made, _ = make(store, "round-to-nearest:format=F16", out="second")
    assert made.name == "second"
    assert [m.name for m in store.list()] == ["second", "tiny"]


@pytest.mark.parametrize(
    ("methods", "out", "error", "message"),
    [
        (["nobody"], "small", UnknownName, "unknown transform 'nobody'"),
        (["wanda"], "small", Incompatible, "needs a text to calibrate on; set --calibration"),
        (["kv-pooling:kv_heads=5"], "small", Incompatible, "set kv_heads to one of 1, 2"),
        (["round-to-nearest"], "tiny", InvalidRequest, "is the source itself"),
        (["round-to-nearest"], "Bad Name", InvalidRequest, "not allowed"),
        (["wanda:sparsity=1"], "small", InvalidRequest, "sparsity is 1.0, must be 0 to below 1"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(
    store: ModelStore, methods: list[str], out: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(store, *methods, out=out)
    assert [m.name for m in store.list()] == ["tiny"]


def test_a_format_that_the_files_cannot_hold_is_refused_at_the_first_layer(store: ModelStore) -> None:
    if store.find("tiny").format == "gguf":
        made, _ = make(store, "round-to-nearest:format=Q8_0")
        assert open_model(made.path).weights.tensor("layers.0.q").format == "Q8_0"
        return
    with pytest.raises(Incompatible, match=r"'layers.0.q' would be Q8_0.*choose F32, F16 or BF16"):
        make(store, "round-to-nearest:format=Q8_0", stop=2)


def test_no_other_model_is_overwritten_but_a_derived_one_is_made_anew(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_llama_gguf())
    store.pull(str(other), name="other")
    with pytest.raises(InvalidRequest, match="the name 'other' is taken by another model"):
        make(store, "round-to-nearest", out="other")
    make(store, "round-to-nearest:format=F16")
    _, artefact = make(store, "round-to-nearest:format=F32")
    assert artefact.transforms[0].startswith('round-to-nearest:format="F32",')


def test_a_calibration_text_that_is_too_short_or_no_text_is_refused(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xff\xfe")
    wanda = [Choice(name="wanda")]
    tell = lambda done, total: None  # noqa: E731
    with pytest.raises(InvalidRequest, match="cannot be read"):
        compress(store, "tiny", "small", wanda, calibration=CalibrationText(path=text), tell=tell)
    text.write_text("a few words")
    few = CalibrationText(path=text, windows=4, window_tokens=8)
    with pytest.raises(Incompatible, match="give a longer text or set --windows lower"):
        compress(store, "tiny", "small", wanda, calibration=few, tell=tell)


def test_an_artefact_that_was_damaged_is_noticed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "artefact.json").write_text('{"source": 3}')
    with pytest.raises(BadModelFile, match="is no artefact"):
        read_artefact(tmp_path)
    assert read_artefact(tmp_path / "nowhere") is None


def unit(values: np.ndarray, taps: dict[str, Tap]) -> Unit:
    spec = uniform_spec(
        name="m",
        family="llama",
        vocab_size=8,
        layers=1,
        width=values.shape[1],
        heads=2,
        kv_heads=1,
        head_dim=4,
        ffn_width=8,
        context_length=8,
        positions=Rope(dim=4),
        tied_head=False,
    )
    return Unit(spec=spec, layer=0, source=Arrays({"layers.0.q": values}), taps=taps)


def tap(columns: np.ndarray) -> Tap:
    sums = columns.astype(np.float32)
    gram = np.diag(sums) + np.float32(0.05)
    return Tap(
        rows=4, square_sum=sums, absolute_sum=sums, signed_sum=sums / 2, gram=gram, low=-sums, high=sums
    )


@pytest.mark.parametrize(("pattern", "zeros"), [("", 16), ("2:4", 16), ("4:8", 16)])
def test_wanda_zeroes_the_lowest_products_of_each_row(pattern: str, zeros: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 32)).astype(np.float32)
    norms = rng.uniform(0.1, 9, 32)
    pruned = Wanda(pattern=pattern, format="F32")  # type: ignore[arg-type]
    found = dequantize(pruned.rewrite(unit(values, {"layers.0.q": tap(norms)}))["layers.0.q"])
    scores = np.abs(values) * np.sqrt(norms.astype(np.float32))
    for row, kept, score in zip(values, found, scores, strict=True):
        gone = kept == 0
        assert gone.sum() == zeros
        np.testing.assert_array_equal(kept[~gone], row[~gone])
        group = int(pattern.split(":")[1]) if pattern else 32
        for part, worth in zip(gone.reshape(-1, group), score.reshape(-1, group), strict=True):
            assert worth[part].max() <= worth[~part].min()


TRANSFORMS = [build("transform", Choice(name=name)) for name in registry.known("transform")]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
class TestEveryTransform:
    def source(self, transform: ModelTransform) -> Unit:
        """Layer 0 of the tiny model, whole; with a head of its own where the transform asks for one."""
        spec = tiny_llama()
        with contextlib.suppress(Incompatible):
            spec = dataclasses.replace(spec, head=Head(tied=False))
            transform.target(tiny_llama())
            spec = tiny_llama()
        rng, arrays, taps = np.random.default_rng(3), {}, {}
        for name, shape in spec.tensors().items():
            arrays[name] = rng.normal(size=shape).astype(np.float32)
            if name.startswith("layers.0.") and len(shape) == 2:
                slopes = rng.normal(size=shape).astype(np.float32)
                gradient = Gradient(windows=2, total=slopes, square_sum=np.square(slopes))
                taps[name] = dataclasses.replace(tap(rng.uniform(0.1, 2, shape[1])), gradient=gradient)
        return Unit(spec=spec, layer=0, source=Arrays(arrays), taps=taps)

    def test_equal_units_give_equal_bytes_and_the_source_stays(self, transform: ModelTransform) -> None:
        source = self.source(transform)
        before = source.values("layers.0.q").copy()
        one, two = transform.rewrite(source), transform.rewrite(source)
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            assert tensor.data.tobytes() == two[name].data.tobytes()
        np.testing.assert_array_equal(source.values("layers.0.q"), before)

    def test_writes_only_tensors_of_its_target_in_their_shapes(self, transform: ModelTransform) -> None:
        source = self.source(transform)
        shapes = transform.target(source.spec).tensors()
        for name, tensor in transform.rewrite(source).items():
            assert name.startswith("layers.0.")
            assert tensor.shape == shapes[name]

    def test_says_how_exact_it_is_and_what_it_needs(self, transform: ModelTransform) -> None:
        assert transform.exactness in ("lossless", "bounded", "lossy")
        assert transform.needs <= {"calibration", "second-moments", "gradients"}

    def test_without_calibration_it_applies_as_it_is_read_or_says_what_it_needs(
        self, transform: ModelTransform
    ) -> None:
        source = self.source(transform)
        spec = source.spec
        if transform.needs:
            with pytest.raises(
                Incompatible, match=r"needs calibration.*; make a new model with pentad compress"
            ):
                apply(transform, spec, source.source)
        else:
            target, found = apply(transform, spec, source.source)
            assert target == transform.target(spec)
            assert found.tensor("layers.0.q").shape == target.tensors()["layers.0.q"]


def test_the_key_of_a_job_tells_all_that_decides_its_bytes() -> None:
    parts = [("a", ("t",), "c"), ("b", ("t",), "c"), ("a", ("t", "t"), "c"), ("a", ("t",), "d")]
    keys = [derivation.job_key(*part) for part in parts]
    assert all(one != two for one, two in itertools.combinations(keys, 2))
    assert compression.DERIVED == "derived"
