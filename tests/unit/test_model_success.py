"""Estimates of success: learned from outcomes, calibrated, kept in files, and what routers make of them."""

from __future__ import annotations

import asyncio
import json
import pathlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from test_model_routing import candidate, state

from gateway_app import call
from pentad import registry
from pentad.application.gateway.app import create_app
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.services import Services
from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest
from pentad.model.prices import Price
from pentad.model.routing.calibration import Isotonic, Platt, calibration_error, conformal_threshold
from pentad.model.routing.elastic import Elastic
from pentad.model.routing.estimate_file import read_estimate, write_estimate
from pentad.model.routing.outcomes import Outcome, lessons_of, read_outcomes
from pentad.model.routing.predicted import Predicted
from pentad.model.routing.success import Chance, Estimator, Lessons, Question, text_of
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, Objective, RunContext

TOPICS = {"sum": (0.95, 0.95), "proof": (0.2, 0.9), "poem": (0.5, 0.5)}
"""How often small and large are right."""


def vector_of(text: str, seed: int = 0) -> tuple[float, ...]:
    """Near for texts of one topic."""
    chance = np.random.default_rng([seed, *text.encode()])
    row = chance.normal(size=12) * 0.2
    row[list(TOPICS).index(text.split()[0])] += 1
    return tuple((row / np.linalg.norm(row)).tolist())


def embed(texts: list[str]) -> list[tuple[float, ...]]:
    return [vector_of(text) for text in texts]


def lessons(count: int = 240, seed: int = 1) -> Lessons:
    chance = np.random.default_rng(seed)
    outcomes = []
    for i in range(count):
        topic = list(TOPICS)[i % 3]
        small, large = (float(chance.random() < p) for p in TOPICS[topic])
        outcomes.append(Outcome(prompt=f"{topic} number {seed} {i}?", right={"small": small, "large": large}))
    return lessons_of(outcomes, embed)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", registry.known("success"))
class TestEveryEstimator:
    def learner(self, name: str) -> Estimator:
        return build("success", Choice(name=name))  # type: ignore[no-any-return]

    def test_learns_who_is_right_where(self, name: str) -> None:
        estimate = self.learner(name).fit(lessons())
        for topic, (small, large) in TOPICS.items():
            (found,) = estimate.chances([Question(text=topic, vector=vector_of(topic))])
            assert found["small"].probability == pytest.approx(small, abs=0.17)
            assert found["large"].probability == pytest.approx(large, abs=0.17)
            for chance in found.values():
                assert 0 <= chance.low <= chance.probability <= chance.high <= 1
                assert chance.evidence > 1

    def test_equal_questions_get_equal_chances_whoever_is_asked_beside(self, name: str) -> None:
        estimate = self.learner(name).fit(lessons(90))
        asked = [Question(text=topic, vector=vector_of(topic)) for topic in TOPICS]
        together = estimate.chances(asked)
        for question, found in zip(asked, together, strict=True):
            (alone,) = estimate.chances([question])
            for model in found:
                assert alone[model].probability == pytest.approx(found[model].probability, abs=1e-9)

    def test_a_file_keeps_it(self, name: str, tmp_path: pathlib.Path) -> None:
        estimate = self.learner(name).fit(lessons(90))
        write_estimate(tmp_path / "e.npz", estimate, encoder="minilm")
        kept = read_estimate(tmp_path / "e.npz")
        asked = [Question(text=topic, vector=vector_of(topic)) for topic in TOPICS]
        assert kept.encoder == "minilm"
        for before, after in zip(estimate.chances(asked), kept.estimate.chances(asked), strict=True):
            for model in before:
                assert after[model].probability == pytest.approx(before[model].probability, abs=1e-4)
        assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]

    def test_models_that_were_not_asked_everywhere_are_learned_where_they_were(self, name: str) -> None:
        known = lessons(240)
        right = known.right.copy()
        right[::2, 0] = np.nan
        estimate = self.learner(name).fit(
            Lessons(models=known.models, questions=known.questions, right=right)
        )
        (found,) = estimate.chances([Question(text="proof", vector=vector_of("proof"))])
        assert found["small"].probability < 0.45 < found["large"].probability
        (blind,) = estimate.chances([Question(text="quite another thing")])
        assert blind["small"].probability == pytest.approx(0.55, abs=0.2)

    def test_is_calibrated_on_questions_that_it_has_not_seen(self, name: str) -> None:
        estimate, fresh = self.learner(name).fit(lessons(600)), lessons(600, seed=2)
        found = estimate.chances(fresh.questions)
        said = np.array([one["small"].probability for one in found])
        assert calibration_error(said, fresh.right[:, 0]) < 0.08


def test_too_little_is_refused_with_what_is_needed() -> None:
    with pytest.raises(InvalidRequest, match="6 outcomes of model 'small' are too few"):
        build("success", Choice(name="mixed")).fit(lessons(6))
    without = lessons_of([Outcome(prompt="sum", right={"small": 1.0})] * 30, None)
    with pytest.raises(InvalidRequest, match="without vectors"):
        build("success", Choice(name="mixed")).fit(without)


def test_outcomes_come_as_lines_and_as_tables(tmp_path: pathlib.Path) -> None:
    line = {"prompt": "2+2?", "outcomes": {"small": 1, "large": 0.5}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text('prompt,small\n"two\nlines",True\n', encoding="utf-8")
    first, second = read_outcomes(tmp_path)
    assert (first.prompt, first.right) == ("2+2?", {"small": 1.0, "large": 0.5})
    assert (second.prompt, second.right) == ("two\nlines", {"small": 1.0})
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "outcomes": {"small": 2}}', encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"a.jsonl:1 is no outcome; give JSON lines like"):
        read_outcomes(tmp_path)
    with pytest.raises(InvalidRequest, match="no outcomes at"):
        read_outcomes(tmp_path / "none.jsonl")


def test_what_is_no_estimate_says_how_to_make_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="make one of outcomes with pentad train-router"):
        Predicted(estimate=str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidRequest, match="make it anew"):
        Predicted(estimate=str(tmp_path / "bad.npz"))
    with pytest.raises(InvalidRequest, match=r"set --out e.npz"):
        write_estimate(tmp_path / "e.txt", build("success", Choice(name="knn")).fit(lessons(30)), encoder="")


def test_calibration_turns_scores_into_what_they_come_to() -> None:
    chance = np.random.default_rng(3)
    scores = chance.normal(size=4000)
    right = (chance.random(4000) < 1 / (1 + np.exp(-(2 * scores + 0.5)))).astype(float)
    platt, isotonic = Platt.fit(scores[:2000], right[:2000]), Isotonic.fit(scores[:2000], right[:2000])
    assert platt.slope == pytest.approx(2, abs=0.3)
    assert platt.offset == pytest.approx(0.5, abs=0.2)
    for fitted in (platt, isotonic):
        assert calibration_error(fitted(scores[2000:]), right[2000:]) < 0.04
    assert list(isotonic.levels) == sorted(isotonic.levels)
    assert calibration_error(np.array([0.9] * 10), np.zeros(10)) == pytest.approx(0.9)


def test_a_conformal_threshold_keeps_its_level_or_says_that_it_cannot() -> None:
    assert conformal_threshold([0.1, 0.2, 0.3], 0.05) == np.inf
    assert conformal_threshold([i / 100 for i in range(1, 100)], 0.05) == 0.95
    chance = np.random.default_rng(0)
    passed = []
    for _ in range(400):
        line = conformal_threshold(chance.random(50).tolist(), 0.1)
        passed.append(float(chance.random() > line))
    assert np.mean(passed) <= 0.1 + 0.04


def test_evidence_narrows_a_chance() -> None:
    few, many = Chance.of(0.8, 5), Chance.of(0.8, 500)
    assert many.high - many.low < (few.high - few.low) / 3
    assert (Chance.of(0.3, 0).low, Chance.of(0.3, 0).high) == (0.0, 1.0)


MODELS = {
    "small": candidate(price=Price(prompt=1, completion=1), quality=0.5),
    "large": candidate(price=Price(prompt=30, completion=30), quality=0.5),
}


@pytest.fixture(scope="module")
def estimate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("estimate") / "e.npz"
    write_estimate(path, build("success", Choice(name="mixed")).fit(lessons()), encoder="minilm")
    return str(path)


def asking(text: str, **changes: object) -> object:
    made = state(MODELS, messages=(Message(role="user", content=text),), **changes)
    return replace(made, vector=lambda encoder, asked: vector_of(asked) if encoder == "minilm" else None)


def test_the_question_decides_who_is_worth_its_price(estimate: str) -> None:
    router = Predicted(estimate=estimate)
    assert router.route(asking("sum of two"))[0] == "small"  # type: ignore[arg-type]
    chosen, decision = router.route(asking("proof of it"))  # type: ignore[arg-type]
    assert chosen == "large"
    assert dict(decision.candidates)["large"] > dict(decision.candidates)["small"]  # type: ignore[operator]
    assert Predicted(estimate=estimate, worth=1.0).route(asking("proof of it"))[0] == "small"  # type: ignore[arg-type]


class Embedding:
    """An encoder that tells in which thread it was asked."""

    dimensions = 12

    def __init__(self) -> None:
        self.threads: list[str] = []

    def embed_counted(self, texts: list[str]) -> tuple[list[list[float]], int]:
        self.threads.append(threading.current_thread().name)
        return [list(vector_of(text)) for text in texts], len(texts)


@pytest.mark.parametrize("router", [Predicted, Elastic])
def test_the_event_loop_never_embeds_a_question(
    estimate: str, router: type[Predicted] | type[Elastic]
) -> None:
    encoder = Embedding()
    models = ModelService(
        {name: ScriptedBackend([["yes"]], repeat=True) for name in ("large", "small")},
        embedders={"minilm": encoder},
        router=router(estimate=estimate),
    )
    asked = replace(state(MODELS).request, messages=(Message(role="user", content="proof of it"),))
    for _ in range(2):
        done = asyncio.run(models.complete(asked))
        assert done.usage.decisions[0].chosen == "large"
    app = create_app(Services(models=models), GatewaySettings())
    turns = [{"role": "user", "content": "sum of two"}]
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        body = {"model": "auto", "messages": turns, "max_tokens": 5, "stream": False}
        assert call(app, "POST", path, body=body).status_code == 200
    assert len(encoder.threads) == 2, "each question is embedded once"
    assert threading.main_thread().name not in encoder.threads


def test_quality_is_a_floor_of_the_chance(estimate: str) -> None:
    floor = RunContext(objective=Objective(min_quality=0.7))
    chosen, decision = Predicted(estimate=estimate, worth=1.0).route(asking("proof of it", context=floor))  # type: ignore[arg-type]
    assert (chosen, decision.constraint) == ("large", "quality of at least 0.7")
    with pytest.raises(Infeasible, match=r"quality of 0.7"):
        Predicted(estimate=estimate).route(asking("poem on it", context=floor))  # type: ignore[arg-type]


def test_where_nobody_embeds_stated_qualities_count(estimate: str) -> None:
    assert Predicted(estimate=estimate).route(state(MODELS))[0] == "small"


def test_the_question_is_what_the_user_said_last() -> None:
    turns = tuple(
        Message(role=role, content=text)  # type: ignore[arg-type]
        for role, text in (("system", "be kind"), ("user", "first"), ("assistant", "yes"), ("user", "last"))
    )
    assert text_of(state(MODELS, messages=turns).request) == "last"
    assert text_of(state(MODELS, messages=None, text=" raw ").request) == "raw"
