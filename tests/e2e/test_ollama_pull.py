"""Ollama's client brings, copies, uses and deletes a model: progress, names and files, against a hub here."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import httpx2
import ollama
import pytest

import model_fixtures as make
from hub_double import REPO, hub
from pentad.model.store import ModelStore
from process_support import serving

GGUF = make.f32_gguf(
    [*make.llama_pairs(), *make.tokenizer_pairs()],
    make.tensors(make.llama_gguf_shapes() | {"ballast": (1 << 20,)}),
)
ASKED: Any = {"num_predict": 4, "temperature": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("pentad") / "home"


@pytest.fixture(scope="module")
def client(home: pathlib.Path) -> Iterator[ollama.Client]:
    first = home.parent / "first.gguf"
    first.write_bytes(make.tiny_llama_gguf())
    with (
        pytest.MonkeyPatch.context() as environment,
        hub({"tiny.gguf": GGUF, "config.json": b"{}"}) as running,
    ):
        environment.delenv("HF_TOKEN", raising=False)
        set_to = {"HF_ENDPOINT": running.url, "HF_HOME": str(home.parent / "hf"), "HF_HUB_OFFLINE": "0"}
        for name, value in (set_to | {"NO_PROXY": "127.0.0.1,localhost"}).items():
            environment.setenv(name, value)
        options = ("--embedding-model", "null", "--kv-bytes", "16MB")
        with serving(home, str(first), *options) as server, ollama.Client(host=server.url) as opened:
            yield opened


def names(client: ollama.Client) -> list[str | None]:
    return [model.model for model in client.list().models]


def test_a_model_is_pulled_with_progress_copied_used_and_deleted(
    client: ollama.Client, home: pathlib.Path
) -> None:
    lines = list(client.pull(f"hf.co/{REPO}", stream=True))
    assert (lines[0].status, lines[-1].status) == ("pulling manifest", "success")
    steps = [line for line in lines if line.completed is not None]
    assert steps, "its bytes are told"
    assert [step.completed for step in steps] == sorted(step.completed or 0 for step in steps)
    assert steps[-1].completed == steps[-1].total == len(GGUF)
    (pulled,) = [name for name in names(client) if name != "first"]
    assert pulled is not None
    assert [model.name for model in ModelStore(home).list()] == [pulled]
    assert client.show(pulled).details is not None
    answer = client.generate(pulled, "abc", options=ASKED, keep_alive="5m").response

    client.copy(pulled, "mine:latest")
    assert client.generate("mine", "abc", options=ASKED).response == answer
    client.delete("mine")
    with pytest.raises(ollama.ResponseError) as gone:
        client.generate("mine", "abc")
    assert gone.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="own name"):
        client.copy("first", pulled)

    # Once more: it is there already, and served under the same name.
    assert client.pull(f"hf.co/{REPO}").status == "success"
    assert names(client).count(pulled) == 1
    client.delete(pulled)
    assert names(client) == ["first"]
    assert ModelStore(home).list() == []
    with pytest.raises(ollama.ResponseError) as deleted:
        client.show(pulled)
    assert deleted.value.status_code == 404


def test_a_pull_of_nothing_fails_in_its_stream_and_changes_nothing(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="other"):
        list(client.pull("hf.co/org/other", stream=True))
    assert names(client) == ["first"]


def test_create_and_push_are_not_there(client: ollama.Client) -> None:
    for path in ("create", "push"):
        answer = httpx2.post(f"{client._client.base_url}/api/{path}", json={"model": "first"})
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
