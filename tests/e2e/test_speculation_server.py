"""Speculation behind the HTTP interface: the same answers, whoever drafts, and the statistics tell."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from gateway_support import Live, live, model_service
from native_support import ROW_BY_ROW
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.speculation.costs import StepCosts
from pentad.model.loading import open_model

MODEL = "smollm2-135m"
COLOURS = "red, green, blue, red, green, blue, red, green, blue, red, green,"
ASKED: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"Go on with this list: {COLOURS}"}]},
    {"messages": [{"role": "user", "content": "Write a story about a fox."}], "stop": [" the"]},
    {"messages": [{"role": "user", "content": "Name three animals."}], "logprobs": True, "top_logprobs": 2},
    {"messages": [{"role": "user", "content": "Name three animals."}], "frequency_penalty": 0.5},
    # Goes round in a circle, so that n-grams foretell it.
    {
        "messages": [{"role": "user", "content": "Repeat this again and again: " + "tick tock, " * 12}],
        "max_tokens": 96,
    },
    {
        "messages": [{"role": "user", "content": "Describe a cat."}],
        "max_tokens": 60,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "cat",
                "schema": {
                    "type": "object",
                    "properties": {
                        "colour": {"type": "string", "maxLength": 10},
                        "wild": {"type": "boolean"},
                    },
                    "required": ["colour", "wild"],
                },
            },
        },
    },
]


@contextmanager
def serving(path: pathlib.Path, speculation: str, drafts: int) -> Iterator[Live]:
    settings = EngineSettings(
        kv_bytes=64 << 20, kernels=ROW_BY_ROW, speculation=speculation, check_invariants=True
    )
    backend = local_backend(
        open_model(path, name=MODEL),
        settings,
        drafts=[open_model(path, name=f"draft{i}") for i in range(drafts)],
    )
    with live(Services(models=model_service(backend, name=MODEL))) as running:
        yield running
    asyncio.run(backend.close())


def answers(server: Live, **options: Any) -> list[Any]:
    """What all the chats get, asked at once."""

    def ask(body: dict[str, Any]) -> Any:
        whole = {"model": MODEL, "temperature": 0, "max_tokens": 24, **body, **options}
        found = httpx2.post(f"{server.url}/v1/chat/completions", json=whole, timeout=120).json()
        choice = found["choices"][0]
        logprobs = [entry["token"] for entry in (choice.get("logprobs") or {}).get("content") or ()]
        return (
            choice["message"]["content"],
            choice["finish_reason"],
            logprobs,
            found["usage"]["completion_tokens"],
        )

    with ThreadPoolExecutor(len(ASKED)) as pool:
        return list(pool.map(ask, ASKED))


@pytest.fixture(scope="module")
def expected(smollm2_path: pathlib.Path) -> tuple[list[Any], list[Any]]:
    with serving(smollm2_path, "none", 0) as server:
        return answers(server), answers(server, temperature=0.8, seed=11)


@pytest.mark.model("smollm2-135m")
@pytest.mark.parametrize(
    ("speculation", "drafts"), [("ngram", 0), ("draft", 1), ("specinfer", 2), ("sequoia", 1)]
)
def test_concurrent_chats_of_every_kind_get_the_answers_that_they_get_without_drafts(
    speculation: str, drafts: int, smollm2_path: pathlib.Path, expected: tuple[list[Any], list[Any]]
) -> None:
    with serving(smollm2_path, speculation, drafts) as server:
        assert answers(server) == expected[0]
        if speculation == "ngram":  # chosen, not drawn: sampled text is the same as well
            assert answers(server, temperature=0.8, seed=11) == expected[1]
        stats = server.gateway.services.models.stats()[MODEL]
        exported = httpx2.get(f"{server.url}/metrics").text
    assert stats["draft_verifications_total"] > 0
    assert stats["draft_accepted_tokens_total"] > 0
    assert stats["kv_blocks_held"] == 0
    assert "pentad_engine_draft_accepted_tokens_total{" in exported


@pytest.mark.model("smollm2-135m")
def test_a_prediction_is_copied_from_and_changes_no_answer(
    smollm2_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a machine that others disturb, drafts may seem not to pay; here every step costs the same.
    observe = StepCosts.observe
    monkeypatch.setattr(StepCosts, "observe", lambda costs, tokens, _: observe(costs, tokens, 0.01))
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Write a story about a fox."}],
        "temperature": 0,
        "max_tokens": 40,
    }
    with serving(smollm2_path, "ngram", 0) as server:

        def ask(**fields: Any) -> tuple[str, float]:
            stats = server.gateway.services.models.stats
            before = stats()[MODEL]["draft_accepted_tokens_total"]
            answer = httpx2.post(f"{server.url}/v1/chat/completions", json=asked | fields, timeout=60)
            assert "prediction" not in answer.headers.get("x-pentad-ignored", "")
            text = answer.json()["choices"][0]["message"]["content"]
            return text, stats()[MODEL]["draft_accepted_tokens_total"] - before

        told, accepted = ask()
        for content in (told, [{"type": "text", "text": told}]):
            again, more = ask(prediction={"type": "content", "content": content})
            assert again == told
            assert more > accepted + 10
        wrong = asked | {"prediction": {"type": "content", "content": [{"type": "image_url"}]}}
        refused = httpx2.post(f"{server.url}/v1/chat/completions", json=wrong, timeout=60)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "prediction.content[0].type"


@pytest.mark.parametrize(
    ("speculation", "drafts", "error", "says"),
    [
        ("none", 1, InvalidRequest, "1 draft models are given, but speculation is 'none'"),
        ("draft", 0, Incompatible, "needs 1 draft model, 0 are given"),
        ("ngram", 1, Incompatible, "uses at most 0 draft models, 1 are given"),
    ],
)
def test_draft_models_that_nobody_uses_or_that_are_missing_are_refused(
    speculation: str, drafts: int, error: type[Exception], says: str, smollm2_path: pathlib.Path
) -> None:
    with pytest.raises(error, match=says), serving(smollm2_path, speculation, drafts):
        pass
