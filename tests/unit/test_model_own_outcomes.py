"""A tenant's own outcomes: kept apart, bounded, whole after a crash, and what they do to the chances."""

from __future__ import annotations

import asyncio
import pathlib
import stat
from collections.abc import Sequence

import numpy as np
import pytest
from test_model_success import lessons, vector_of

from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.backend import ChoiceDone, Completion, StreamDone, TextDelta, ToolCallDelta, fold
from pentad.model.routing.calibration import calibration_error
from pentad.model.routing.estimate_file import write_estimate
from pentad.model.routing.outcome_store import OutcomeStore
from pentad.model.routing.outcomes import Outcome
from pentad.model.routing.predicted import Predicted
from pentad.model.routing.recalibrated import Recalibrated
from pentad.model.routing.signals import signal_of
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, OutputFormat, Request, RunContext, ToolCall, ToolChoice, ToolSpec, Usage


def outcome(text: str, right: float = 1.0) -> Outcome:
    return Outcome(prompt=text, right={"small": right}, said={"small": 0.5}, estimate="e")


class TestStore:
    def test_tenants_never_see_each_others(self, tmp_path: pathlib.Path) -> None:
        store = OutcomeStore(tmp_path / "o")
        store.add("../ann", outcome("hers"))
        store.add("bob", outcome("his"))
        assert [one.prompt for one in store.read("../ann")] == ["hers"]
        assert [one.prompt for one in OutcomeStore(tmp_path / "o").read("bob")] == ["his"]
        files = list((tmp_path / "o").iterdir())
        assert len(files) == 2
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        store.forget("bob")
        assert store.read("bob") == []
        assert len(store.read("../ann")) == 1

    def test_it_stays_within_its_bytes_and_keeps_the_latest(self, tmp_path: pathlib.Path) -> None:
        store = OutcomeStore(tmp_path, most_bytes=8192)
        for i in range(500):
            store.add("ann", outcome(f"question {i}"))
        found = store.read("ann")
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8192
        assert [one.prompt for one in found] == [f"question {i}" for i in range(500 - len(found), 500)]
        assert len(found) > 20

    def test_half_a_line_costs_that_line_alone(self, tmp_path: pathlib.Path) -> None:
        store = OutcomeStore(tmp_path)
        store.add("ann", outcome("first"))
        (file,) = tmp_path.iterdir()
        with file.open("ab") as torn:
            torn.write(b'{"prompt": "torn", "outc')
        store.add("ann", outcome("second"))
        assert [one.prompt for one in OutcomeStore(tmp_path).read("ann")] == ["first", "second"]

    def test_a_folder_that_cannot_be_is_refused(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(InvalidRequest, match="cannot be kept in"):
            OutcomeStore(tmp_path / "file")


TOOL = ToolSpec(name="look")


def asking(text: str = "proof of it", **fields: object) -> Request:
    message = Message(role="user", content=text)
    return Request(id="r", model="", messages=(message,), **fields)  # type: ignore[arg-type]


def answering(text: str = "", calls: Sequence[ToolCall] = (), reason: str = "stop") -> Completion:
    deltas: list[object] = [TextDelta(text=text)] if text else []
    for i, call in enumerate(calls):
        deltas.append(ToolCallDelta(index=i, id=call.id, name=call.name, arguments=call.arguments))
    return fold([*deltas, ChoiceDone(reason=reason), StreamDone(usage=Usage())])  # type: ignore[list-item, arg-type]


@pytest.mark.parametrize(
    ("request_", "answer", "signal"),
    [
        (asking(), answering("anything"), None),
        (asking(format=OutputFormat(kind="json_object")), answering('{"a": 1}'), 1.0),
        (asking(format=OutputFormat(kind="json_object")), answering("[1]"), 0.0),
        (asking(format=OutputFormat(kind="json_object")), answering('{"a": '), 0.0),
        (asking(format=OutputFormat(kind="json_object")), answering("{}", reason="length"), 0.0),
        (asking(tools=(TOOL,)), answering("no call"), None),
        (asking(tools=(TOOL,)), answering(calls=[ToolCall(id="1", name="look", arguments="{}")]), 1.0),
        (asking(tools=(TOOL,)), answering(calls=[ToolCall(id="1", name="leap", arguments="{}")]), 0.0),
        (asking(tools=(TOOL,)), answering(calls=[ToolCall(id="1", name="look", arguments="[")]), 0.0),
        (asking(tools=(TOOL,), tool_choice=ToolChoice(mode="required")), answering("no"), 0.0),
    ],
)
def test_form_tells_what_it_can(request_: Request, answer: Completion, signal: float | None) -> None:
    assert signal_of(request_, answer) == signal


def test_outcomes_move_the_chances_of_a_model_that_became_worse() -> None:
    estimate, chance = build("success", Choice(name="mixed")).fit(lessons(400)), np.random.default_rng(4)
    fresh = lessons(600, seed=5)
    said = [row["small"].probability for row in estimate.chances(fresh.questions)]
    now = [float(chance.random() < p * 0.5) for p in said]
    own = [
        Outcome(prompt=q.text, right={"small": r}, said={"small": p})
        for q, r, p in zip(fresh.questions[:300], now[:300], said[:300], strict=True)
    ]
    few, many = Recalibrated.by(estimate, own[:3]), Recalibrated.by(estimate, own)
    assert abs(few.shifts["small"]) < abs(many.shifts["small"])
    after = [row["small"].probability for row in many.chances(fresh.questions[300:])]
    before = calibration_error(np.array(said[300:]), np.array(now[300:]))
    assert calibration_error(np.array(after), np.array(now[300:])) < before / 2
    ((same, moved),) = zip(
        estimate.chances([fresh.questions[0]]), many.chances([fresh.questions[0]]), strict=True
    )
    assert moved["large"].probability == pytest.approx(same["large"].probability)


class Embedding:
    """An encoder whose vectors tell the topic."""

    dimensions = 12

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [list(vector_of(text)) for text in texts], len(texts)


def test_answers_of_a_server_correct_the_chances_of_their_tenant_alone(tmp_path: pathlib.Path) -> None:
    write_estimate(tmp_path / "e.npz", build("success", Choice(name="knn")).fit(lessons()), encoder="minilm")
    router = Predicted(estimate=str(tmp_path / "e.npz"), outcomes=str(tmp_path / "own"), worth=0.0)
    models = ModelService(
        {name: ScriptedBackend([["{"]], repeat=True) for name in ("large", "small")},
        embedders={"minilm": Embedding()},
        router=router,
    )
    wanted = OutputFormat(kind="json_object")

    def chosen(tenant: str, **context: object) -> str:
        request = asking(format=wanted, tenant=tenant, context=RunContext(**context))  # type: ignore[arg-type]
        done = asyncio.run(models.complete(request))
        return done.usage.decisions[0].chosen

    assert chosen("bob", data_label="secret") == "large"
    assert not list((tmp_path / "own").iterdir())
    seen = [chosen("ann") for _ in range(40)]
    assert (seen[0], seen[-1]) == ("large", "small")  # that large fails her was found out
    assert chosen("bob") == "large"
