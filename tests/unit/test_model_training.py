"""Training through the store: recipes learn, repeat themselves, go on after a kill, say what they need."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from model_fixtures import tiny_llama_gguf, write_llama_folder
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import BadModelFile, Incompatible, InvalidRequest
from pentad.execution.quant import dequantize
from pentad.execution.training import Schedule, TrainRecipe
from pentad.model.artefact import Artefact, Training, read_artefact
from pentad.model.loading import open_model
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.model.training.train import train

RECIPES = registry.known("recipe")
SCHEDULE = Schedule(steps=12, batch=2, window_tokens=8, checkpoint_steps=4)


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("ab ba " * 200)
    return path


@pytest.fixture(params=["gguf", "folder"])
def store(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> ModelStore:
    return made_store(tmp_path, request.param)


def made_store(tmp_path: pathlib.Path, kind: str = "gguf") -> ModelStore:
    tmp_path.mkdir(exist_ok=True)
    store = ModelStore(tmp_path / "home", catalogue={})
    if kind == "gguf":
        source = tmp_path / "tiny.gguf"
        source.write_bytes(tiny_llama_gguf())
    else:
        source = write_llama_folder(tmp_path / "tiny")
    store.pull(str(source), name="tiny")
    return store


def make(
    store: ModelStore,
    text: pathlib.Path,
    recipe: str = "fine-tune:learning_rate=0.02",
    *,
    stop: int | None = None,
    out: str = "learnt",
    schedule: Schedule = SCHEDULE,
    teacher: str | None = None,
) -> tuple[StoredModel, Artefact]:
    def tell(done: int, total: int) -> None:
        if done == stop:
            raise Killed

    needs = build("recipe", Choice.of(recipe)).needs
    teacher = teacher or ("tiny" if "teacher" in needs else None)
    return train(
        store,
        "tiny",
        out,
        Choice.of(recipe),
        text,
        schedule=schedule,
        teacher=teacher,
        format="F32",
        tell=tell,
    )


def weights(store: ModelStore, name: str) -> dict[str, np.ndarray]:
    files = open_model(store.find(name).path)
    return {each: dequantize(files.weights.tensor(each)) for each in files.weights.names()}


def learnt(artefact: Artefact) -> Training:
    assert artefact.training is not None
    return artefact.training


def test_text_becomes_likelier_and_the_artefact_says_how(store: ModelStore, text: pathlib.Path) -> None:
    made, artefact = make(store, text)
    training = learnt(artefact)
    assert training.loss_after < training.loss_before - 0.1
    assert training.recipe == "fine-tune:learning_rate=0.02,embeddings=true"
    assert read_artefact(made.path if made.path.is_dir() else made.path.parent) == artefact
    before, after = weights(store, "tiny"), weights(store, "learnt")
    assert before.keys() == after.keys()
    assert all(np.any(before[name] != after[name]) for name in before if name.endswith((".q", ".down")))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: pathlib.Path, text: pathlib.Path, recipe: str
) -> None:
    straight = make(made_store(tmp_path / "a"), text, recipe)[0].sha256
    store = made_store(tmp_path / "b")
    for step in (3, 9):
        with pytest.raises(Killed):
            make(store, text, recipe, stop=step)
        assert [model.name for model in store.list()] == ["tiny"]
    assert make(store, text, recipe)[0].sha256 == straight


@pytest.mark.parametrize("recipe", RECIPES)
class TestContract:
    """What holds for every recipe."""

    def test_its_needs_are_told_and_honoured(
        self, tmp_path: pathlib.Path, text: pathlib.Path, recipe: str
    ) -> None:
        made: TrainRecipe = build("recipe", Choice.of(recipe))
        assert made.name == recipe
        assert made.exactness == "lossy"
        teacher = None if "teacher" in made.needs else "tiny"
        with pytest.raises(Incompatible, match="teacher") as caught:
            train(
                made_store(tmp_path),
                "tiny",
                "learnt",
                Choice.of(recipe),
                text,
                schedule=SCHEDULE,
                teacher=teacher,
                tell=lambda *_: None,
            )
        assert "--teacher" in (caught.value.hint or "")

    def test_it_learns_something_and_only_weights_of_the_model(
        self, tmp_path: pathlib.Path, text: pathlib.Path, recipe: str
    ) -> None:
        store = made_store(tmp_path)
        _, artefact = make(store, text, f"{recipe}:learning_rate=0.01" if recipe != "distil" else recipe)
        before, after = weights(store, "tiny"), weights(store, "learnt")
        assert {name: value.shape for name, value in before.items()} == {
            name: value.shape for name, value in after.items()
        }
        assert any(np.any(before[name] != after[name]) for name in before)
        assert learnt(artefact).loss_before > 0

    def test_its_cost_grows_with_model_and_text(self, tmp_path: pathlib.Path, recipe: str) -> None:
        spec = open_model(made_store(tmp_path).find("tiny").path).spec
        made: TrainRecipe = build("recipe", Choice.of(recipe))
        assert made.flops(spec, 2000) == 2 * made.flops(spec, 1000)
        assert 2 * spec.parameters <= made.flops(spec, 1) <= 10 * spec.parameters

    def test_unknown_options_are_refused(self, recipe: str) -> None:
        with pytest.raises(InvalidRequest, match=r"did you mean .learning_rate."):
            build("recipe", Choice.of(f"{recipe}:learning_rat=1"))
        with pytest.raises(InvalidRequest, match="learning_rate is 2"):
            build("recipe", Choice.of(f"{recipe}:learning_rate=2"))


def test_a_student_comes_nearer_to_its_teacher(tmp_path: pathlib.Path, text: pathlib.Path) -> None:
    store = made_store(tmp_path)
    make(
        store,
        text,
        "fine-tune:learning_rate=0.05",
        out="teacher",
        schedule=Schedule(steps=40, window_tokens=8),
    )
    long = Schedule(steps=60, batch=4, window_tokens=8)
    _, artefact = make(
        store, text, "distil:learning_rate=0.02,text_share=0", teacher="teacher", schedule=long
    )
    taught = learnt(artefact)
    assert taught.teacher == "teacher"
    assert taught.loss_after < taught.loss_before - 0.1


def test_low_rank_changes_matrices_of_layers_by_matrices_of_its_rank(
    tmp_path: pathlib.Path, text: pathlib.Path
) -> None:
    store = made_store(tmp_path)
    make(store, text, "low-rank:rank=2,learning_rate=0.02")
    before, after = weights(store, "tiny"), weights(store, "learnt")
    for name, values in before.items():
        change = after[name] - values
        if name.startswith("layers.") and values.ndim == 2:
            assert 1 <= np.linalg.matrix_rank(change, tol=1e-4) <= 2
        else:
            assert not change.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": Schedule(steps=1, window_tokens=700)}, "longer than the context|tokens; a window"),
        ({"out": "tiny"}, "is the source itself"),
        ({"recipe": "fine-tun"}, "unknown recipe"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(
    tmp_path: pathlib.Path, text: pathlib.Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises((Incompatible, InvalidRequest), match=words):
        make(made_store(tmp_path), text, **change)  # type: ignore[arg-type]


def test_a_text_that_is_too_short_or_no_text_is_refused(tmp_path: pathlib.Path) -> None:
    store = made_store(tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("ab")
    with pytest.raises(Incompatible, match="the text has"):
        make(store, short)
    short.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="data text"):
        make(store, short)


def test_a_damaged_checkpoint_is_named(tmp_path: pathlib.Path, text: pathlib.Path) -> None:
    store = made_store(tmp_path)
    with pytest.raises(Killed):
        make(store, text, stop=9)
    (checkpoint,) = (tmp_path / "home").rglob("checkpoint.npz")
    checkpoint.write_bytes(b"PK no archive")
    with pytest.raises(BadModelFile, match="remove it to begin anew"):
        make(store, text)
