"""DistillSpec: a draft learns on texts of its own what its target would say."""

from __future__ import annotations

import pathlib

import pytest

torch = pytest.importorskip("torch")

from test_model_training import SCHEDULE, made_store, make  # noqa: E402

from pentad.choice import Choice, build  # noqa: E402
from pentad.errors import InvalidRequest  # noqa: E402
from pentad.execution.torch.training import Student, _sampled  # noqa: E402
from pentad.execution.training import Schedule, TrainStep  # noqa: E402
from pentad.model.loading import open_model  # noqa: E402
from pentad.model.training.distill_spec import DistillSpec  # noqa: E402
from pentad.model.training.train import train  # noqa: E402


def step(rows: int = 6, words: int = 5) -> TrainStep:
    dice = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(rows, words, generator=dice) for _ in range(2))
    return TrainStep(logits=student, targets=torch.zeros(rows, dtype=torch.long), teacher=teacher)


@pytest.mark.row("kd-distillspec", "mechanism")
def test_each_divergence_is_that_of_its_definition() -> None:
    one = step()
    assert one.teacher is not None
    p, q = one.teacher.softmax(-1), one.logits.softmax(-1)
    found = {
        name: DistillSpec(divergence=name).loss(one).item()  # type: ignore[arg-type]
        for name in ("forward-kl", "reverse-kl", "total-variation")
    }
    assert found["forward-kl"] == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-5)
    assert found["reverse-kl"] == pytest.approx((q * (q / p).log()).sum(-1).mean().item(), rel=1e-5)
    acceptance = torch.minimum(p, q).sum(-1).mean().item()
    assert found["total-variation"] == pytest.approx(1 - acceptance, rel=1e-5)
    same = TrainStep(logits=one.teacher, targets=one.targets, teacher=one.teacher)
    for name in found:
        assert DistillSpec(divergence=name).loss(same).item() == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.row("kd-distillspec", "mechanism")
def test_texts_are_the_drafts_own_behind_their_first_half_and_the_same_for_the_same_step(
    tmp_path: pathlib.Path,
) -> None:
    files = open_model(made_store(tmp_path).find("tiny").path)
    student = Student(files.spec, files.weights)
    windows = torch.arange(20).view(2, 10) + 30
    schedule = Schedule(seed=3)

    def drawn(share: float, at: int) -> torch.Tensor:
        return _sampled(student, {}, DistillSpec(sampled_share=share), windows, schedule, at)

    one = drawn(1.0, 0)
    assert one.shape == windows.shape
    assert torch.equal(one[:, :5], windows[:, :5])
    assert not torch.equal(one[:, 5:], windows[:, 5:])
    assert torch.equal(drawn(1.0, 0), one)
    assert not torch.equal(drawn(1.0, 1), one)
    assert all(torch.equal(drawn(0.0, at), windows) for at in range(4))
    given = [torch.equal(drawn(0.5, at), windows) for at in range(40)]
    assert 8 < sum(given) < 32


@pytest.mark.row("kd-distillspec", "mechanism")
def test_a_sampled_token_has_the_chance_that_the_model_gives_it(tmp_path: pathlib.Path) -> None:
    files = open_model(made_store(tmp_path).find("tiny").path)
    student = Student(files.spec, files.weights)
    texts = torch.full((4000, 3), 40)
    found = student.continued(texts, {}, 2, torch.Generator().manual_seed(1))[:, 2]
    chances = student.logits(texts[:1], {})[1].softmax(-1)
    counted = torch.bincount(found, minlength=len(chances)) / len(found)
    assert (counted - chances).abs().max() < 0.02


@pytest.mark.row("kd-distillspec", "mechanism")
def test_a_draft_comes_nearer_to_its_target_and_the_artefact_holds_the_curve(tmp_path: pathlib.Path) -> None:
    store, text = made_store(tmp_path), tmp_path / "text.txt"
    text.write_text("ab ba " * 200)
    make(store, text, "fine-tune:learning_rate=0.02", out="target")
    schedule = Schedule(steps=30, batch=4, window_tokens=8, checkpoint_steps=10)
    _, artefact = train(
        store,
        "tiny",
        "draft",
        Choice.of("distillspec:learning_rate=0.02,embeddings=true"),
        text,
        schedule=schedule,
        teacher="target",
        format="F32",
        tell=lambda *_: None,
    )
    training = artefact.training
    assert training is not None
    assert len(training.curve) == 30
    assert sum(training.curve[-5:]) < 0.5 * sum(training.curve[:5])


def test_long_curves_are_thinned(tmp_path: pathlib.Path) -> None:
    from pentad.model.training.train import CURVE_POINTS, thinned

    assert thinned([1.0, 2.0]) == (1.0, 2.0)
    long = thinned([float(i) for i in range(10 * CURVE_POINTS)])
    assert len(long) == CURVE_POINTS
    assert long[0] == pytest.approx(4.5)
    assert SCHEDULE.steps < CURVE_POINTS


@pytest.mark.parametrize("option", ["sampled_share=1.5", "learning_rate=0", "divergence=none"])
def test_options_are_in_range(option: str) -> None:
    with pytest.raises(InvalidRequest):
        build("recipe", Choice.of(f"distillspec:{option}"))
