"""Models that would take each other's place, and prices of what is not served, are refused at the start."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from pydantic import ValidationError

from model_fixtures import tiny_llama_gguf
from pentad.application.config import ModelPrice, RemoteBackend, Settings
from pentad.application.wiring import build
from pentad.choice import Choice
from pentad.errors import Incompatible, InvalidRequest, ModelNotFound
from pentad.model.service import ModelService
from pentad.model.store import ModelStore

FAR = "http://127.0.0.1:9/v1"


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny_llama_gguf())
    ModelStore(tmp_path / "home").pull(str(file), name="tiny")
    return tmp_path / "home"


def served(home: pathlib.Path, **change: Any) -> ModelService:
    async def run() -> ModelService:
        async with build(Settings(home=home, embedding_model=None, **change)) as services:
            return services.models

    return asyncio.run(run())


def test_a_remote_backend_never_takes_a_local_models_place(home: pathlib.Path) -> None:
    far = RemoteBackend(name="tiny", url=FAR)
    with pytest.raises(InvalidRequest, match="has a local model's name and would get its prompts") as caught:
        served(home, models=("tiny",), backends=(far,))
    assert caught.value.param == "backends"


def test_one_model_is_not_served_twice(home: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="two of `models` are called 'tiny'"):
        served(home, models=("tiny", "tiny"))


def test_two_entries_of_one_name_are_refused() -> None:
    far = {"name": "far", "url": FAR}
    with pytest.raises(ValidationError, match="backends has two entries for 'far'"):
        Settings(backends=({**far}, {**far, "model": "other"}))  # type: ignore[arg-type]
    price = {"model": "far", "prompt": 1, "completion": 1}
    with pytest.raises(ValidationError, match="prices has two entries for 'far'"):
        Settings(prices=(price, price))  # type: ignore[arg-type]


def test_a_price_needs_a_served_model(home: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="which is not served; served are: tiny"):
        served(home, models=("tiny",), prices=(ModelPrice(model="tinny", prompt=1, completion=2),))


def test_without_the_default_embedding_model_the_rest_is_served_and_an_asked_for_one_is_refused(
    home: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def embedders(settings: Settings) -> list[str]:
        async with build(settings) as services:
            return [card.name for card in services.models.models() if card.kind == "embed"]

    assert asyncio.run(embedders(Settings(home=home, models=["tiny"]))) == []
    assert "pentad pull minilm" in caplog.text
    with pytest.raises(ModelNotFound, match="minilm"):
        asyncio.run(embedders(Settings(home=home, models=["tiny"], embedding_model="minilm")))


def test_a_budget_that_a_scaler_would_not_keep_is_refused(home: pathlib.Path) -> None:
    with pytest.raises(Incompatible, match="keeps no memory_bytes") as caught:
        served(home, models=("tiny",), scaler=Choice(name="queue"), memory_bytes=1 << 30)
    assert caught.value.param == "memory_bytes"
