"""Ollama's own client, and a desktop client's sequence of calls, against real small models."""

from __future__ import annotations

import base64
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx2
import ollama
import pytest

from model_fixtures import tiny_llama_gguf
from pentad.application.config import EngineSettings, Settings
from pentad.application.gateway import GatewaySettings
from pool_support import Serving, serving

MODEL = "small"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY: Any = {"temperature": 0, "num_predict": 24}
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
    b"\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\5\0\1\xff\xab\xd0\x1b\x9d\0\0\0\0IEND\xaeB`\x82"
).decode()


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


@pytest.fixture(scope="module")
def server(
    smollm2_path: pathlib.Path, minilm_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.gguf").write_bytes(tiny_llama_gguf())
    (folder / "small.gguf").symlink_to(smollm2_path.resolve())
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        models=(str(folder),),
        aliases={"helper:mini": MODEL, "vectors": pathlib.Path(minilm_path).name.lower()},
        embedding_model=str(minilm_path),
        engine=EngineSettings(kv_bytes=48 << 20, threads=1),
        server=GatewaySettings(port=0),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture
def client(server: Serving) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url) as opened:
        yield opened


def test_a_streamed_chat_equals_the_plain_one_and_its_durations_are_measured(client: ollama.Client) -> None:
    plain = client.chat(MODEL, QUESTION, options=GREEDY)
    parts = list(client.chat("small:latest", QUESTION, options=GREEDY, stream=True))
    assert plain.message.content is not None
    assert "Paris" in plain.message.content
    assert "".join(part.message.content or "" for part in parts) == plain.message.content
    last = parts[-1]
    assert (last.done, last.done_reason, plain.done) == (True, plain.done_reason, True)
    assert not any(part.done for part in parts[:-1])
    assert last.eval_count == plain.eval_count
    assert plain.prompt_eval_count == last.prompt_eval_count
    for one in (plain, last):
        assert one.total_duration is not None
        assert one.eval_duration is not None
        assert one.prompt_eval_duration is not None
        assert 0 < one.eval_duration < one.total_duration < 120e9
        assert 0 < one.prompt_eval_duration < one.total_duration
    assert last.load_duration == 0, "it was loaded already"


def test_options_reach_the_model(client: ollama.Client) -> None:
    short = client.chat("helper:mini", QUESTION, options={"temperature": 0, "num_predict": 3})
    assert (short.eval_count, short.done_reason) == (3, "length")
    stopped = client.generate(MODEL, "Count: one two three", options=GREEDY | {"stop": [" "]})
    assert " " not in stopped.response
    seeded = {"temperature": 1.0, "seed": 7, "num_predict": 8}
    first, second = (client.chat(MODEL, QUESTION, options=seeded).message.content for _ in range(2))
    assert first == second


def test_format_json_and_a_schema_are_kept(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "people": {"type": "integer", "minimum": 0, "maximum": 99999999},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    answer = client.chat(MODEL, QUESTION, format=schema, options={"temperature": 0, "num_predict": 64})
    assert set(json.loads(answer.message.content or "")) == {"city", "people"}
    free = client.generate(
        MODEL, "A city as JSON.", format="json", options={"num_predict": 200, "temperature": 0}
    )
    if free.done_reason == "stop":
        assert isinstance(json.loads(free.response), dict)


def test_a_tool_is_called_and_its_result_read(client: ollama.Client) -> None:
    asked: Any = [{"role": "user", "content": "Use the tool add with a=2 and b=3."}]
    answer = client.chat(MODEL, asked, tools=[add], options={"temperature": 0, "num_predict": 80})
    whole = [*asked, answer.message, {"role": "tool", "content": "5", "tool_name": "add"}]
    told = client.chat(MODEL, whole, tools=[add], options={"temperature": 0, "num_predict": 16})
    assert told.done
    for call in answer.message.tool_calls or ():
        assert call.function.name == "add"
        assert isinstance(call.function.arguments, dict)


def test_a_bare_prompt_with_raw_is_completed_without_a_template(client: ollama.Client) -> None:
    raw = client.generate(MODEL, "The capital of France is", raw=True, options=GREEDY)
    assert "Paris" in raw.response
    assert raw.prompt_eval_count is not None
    assert raw.prompt_eval_count < 10


def test_images_are_refused_where_the_model_takes_none(client: ollama.Client) -> None:
    turn: Any = [{"role": "user", "content": "What is this?", "images": [PIXEL]}]
    with pytest.raises(ollama.ResponseError, match="image") as caught:
        client.chat(MODEL, turn)
    assert caught.value.status_code == 400


def test_embed_takes_one_text_or_several(client: ollama.Client) -> None:
    found = client.embed("vectors", ["a cat", "a dog", "tax law"])
    vectors = found.embeddings
    assert [len(vector) for vector in vectors] == [384] * 3
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    one = client.embed("vectors", "a cat").embeddings[0]
    assert sum(a * b for a, b in zip(one, vectors[0], strict=True)) > 0.999
    old = client.embeddings("vectors", "a cat").embedding
    assert list(old) == pytest.approx(list(one))


def test_embed_tells_how_long_it_waited_for_its_model(server: Serving, client: ollama.Client) -> None:
    name = server.services.models.served.canonical("vectors")
    httpx2.post(f"{server.url}/models/unload", json={"model": name}, timeout=60)
    cold, warm = (client.embed("vectors", "a cat") for _ in range(2))
    assert cold.load_duration is not None
    assert cold.total_duration is not None
    assert 1_000_000 < cold.load_duration < cold.total_duration
    assert warm.load_duration == 0


def test_vectors_of_tokens_are_those_of_their_text(server: Serving) -> None:
    name = server.services.models.served.canonical("vectors")

    def vectors(given: Any, **more: Any) -> Any:
        body = {"model": name, "input": given, **more}
        answer = httpx2.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["prompt_tokens"] > 0
        return [item["embedding"] for item in answer.json()["data"]]

    (text,) = vectors("a cat")
    tokens = [101, 1037, 4937, 102]
    assert vectors(tokens) == vectors([tokens])
    assert vectors([tokens, tokens])[1] == pytest.approx(text, abs=1e-6)
    raw = base64.b64decode(vectors([tokens], encoding_format="base64")[0])
    assert list(memoryview(raw).cast("f")) == pytest.approx(text, abs=1e-6)
    for wrong in ([30522], [[-1]], [tokens, []], ["a", tokens]):
        answer = httpx2.post(f"{server.url}/v1/embeddings", json={"model": name, "input": wrong})
        assert (answer.status_code, answer.json()["error"]["param"][:5]) == (400, "input")


def test_models_are_listed_shown_loaded_and_unloaded(client: ollama.Client) -> None:
    names = [model.model for model in client.list().models]
    assert names[:2] == ["small", "tiny"]
    small = next(model for model in client.list().models if model.model == MODEL)
    assert small.details is not None
    assert (small.details.family, small.details.parameter_size) == ("llama", "134.5M")
    assert small.details.quantization_level == "Q4_1"
    shown = client.show(MODEL)
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.capabilities is not None
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert "<|im_start|>" in (shown.template or "")

    def loaded() -> list[str | None]:
        return [model.model for model in client.ps().models]

    assert client.generate(MODEL, keep_alive="10m").done_reason == "load"
    assert MODEL in loaded()
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert MODEL not in loaded()
    again = client.chat(MODEL, QUESTION, options=GREEDY, keep_alive=-1)
    assert again.load_duration is not None
    assert again.load_duration > 10_000_000, "it was loaded for this request"
    assert MODEL in loaded()
    with pytest.raises(ollama.ResponseError, match="'none'") as caught:
        client.chat("none", QUESTION)
    assert caught.value.status_code == 404


def test_a_router_client_of_llamacpp_loads_and_unloads(server: Serving) -> None:
    def states() -> dict[str, str]:
        listed = httpx2.get(f"{server.url}/models").json()["data"]
        return {one["id"]: one["status"]["value"] for one in listed}

    for route, state in (("load", "loaded"), ("unload", "unloaded"), ("load", "loaded")):
        answer = httpx2.post(f"{server.url}/models/{route}", json={"model": "tiny"}, timeout=60)
        assert answer.json() == {"success": True}
        assert states()["tiny"] == state
    assert httpx2.post(f"{server.url}/models/load", json={"model": "none"}).status_code == 404
    cards = httpx2.get(f"{server.url}/v1/models").json()["data"]
    assert {card["id"]: card["capabilities"]["state"] for card in cards}["tiny"] == "loaded"


def test_a_desktop_clients_sequence_of_calls(server: Serving) -> None:
    """As Open WebUI does it: is it there, what is there, what can it do, chat in lines, what is loaded."""
    with httpx2.Client(base_url=server.url, timeout=120) as web:
        assert web.head("/").status_code == 200
        assert web.get("/api/version").json()["version"].count(".") == 2
        tags = web.get("/api/tags").json()["models"]
        assert {"name", "model", "modified_at", "size", "digest", "details"} <= tags[0].keys()
        assert web.post("/api/show", json={"name": tags[0]["name"]}).json()["details"]["format"] == "gguf"
        body = {"model": tags[0]["name"], "messages": QUESTION, "options": {**GREEDY, "num_ctx": 4096}}
        with web.stream("POST", "/api/chat", json=body) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) for line in answer.iter_lines()]
        assert lines[-1]["done"] is True
        assert "Paris" in "".join(line["message"]["content"] for line in lines)
        assert any(one["name"] == tags[0]["name"] for one in web.get("/api/ps").json()["models"])
        wrong = web.post("/api/chat", json={"model": tags[0]["name"], "messages": "hello"})
        assert (wrong.status_code, list(wrong.json())) == (400, ["error"])


def test_a_path_is_not_pulled_and_files_outside_of_the_store_are_not_deleted(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="no model '/etc/passwd'"):
        client.pull("/etc/passwd")
    with pytest.raises(ollama.ResponseError, match="not the store's") as caught:
        client.delete("tiny")
    assert caught.value.status_code == 403
    assert client.show("tiny").details is not None
