"""Servers with protocols of their own, played after their published ones: what is sent, read and refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import pytest

from pentad import registry
from pentad.errors import (
    BackendFailed,
    Incompatible,
    InvalidRequest,
    Overloaded,
    PentadError,
    Unavailable,
)
from pentad.execution.backend import Completion, collect
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.engines import ENGINES
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.backends.wires.server_metrics import samples
from pentad.model.service import ModelService
from pentad.types import Message, Request, Sampling, ToolSpec

WIRES = ("triton", "tfserving", "mii")
Page = Callable[[httpx2.Request], httpx2.Response]


class Server:
    """Answers by path; keeps the bodies that it got."""

    def __init__(self, pages: Mapping[str, Any]) -> None:
        self.pages = pages
        self.got: list[tuple[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.decode()
        self.got.append((path, json.loads(request.content) if request.content else None))
        page = self.pages.get(path)
        if page is None:
            return httpx2.Response(404, json={"error": f"Request for unknown model at {path}"})
        if callable(page):
            return page(request)  # type: ignore[no-any-return]
        return page if isinstance(page, httpx2.Response) else httpx2.Response(200, json=page)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.got]


def events(*found: Any) -> httpx2.Response:
    text = "".join(f"data: {json.dumps(each)}\n\n" for each in found)
    return httpx2.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, text=text)


def tensors(**types: str) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": type, "shape": [-1, 1]} for name, type in types.items()]


def metadata(inputs: Mapping[str, str], **outputs: str) -> dict[str, Any]:
    return {
        "name": "m",
        "versions": ["1"],
        "platform": "python",
        "inputs": tensors(**inputs),
        "outputs": tensors(**(outputs or {"text_output": "BYTES"})),
    }


def generated(text: str, **more: Any) -> dict[str, Any]:
    return {"model_name": "m", "model_version": "1", "text_output": text, **more}


SIGNATURE = {
    "inputs": {"prompt": {"dtype": "DT_STRING"}, "max_tokens": {"dtype": "DT_INT32"}},
    "outputs": {"text": {"dtype": "DT_STRING"}},
    "method_name": "tensorflow/serving/predict",
}
SERVING = {
    "model_version_status": [
        {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
SERVED = {
    "model_spec": {"name": "m"},
    "metadata": {"signature_def": {"signature_def": {"serving_default": SIGNATURE}}},
}


def pages(name: str) -> dict[str, Any]:
    """A server that answers "Hello" to everything."""
    match name:
        case "triton":
            return {
                "/v2/models/m": metadata({"text_input": "BYTES"}),
                "/v2/models/m/generate_stream": lambda _: events(generated("Hel"), generated("lo")),
            }
        case "tfserving":
            return {
                "/v1/models/m": SERVING,
                "/v1/models/m/metadata": SERVED,
                "/v1/models/m:predict": {"predictions": ["Hello"]},
            }
    answer = {"generated_text": "Hello", "prompt_length": 3, "generated_length": 2, "finish_reason": "stop"}
    return {"/mii/m": json.dumps([answer])}


def backend(name: str, server: Page, **change: Any) -> OpenAIBackend:
    endpoint = Endpoint(
        **{
            "base_url": "http://far.example:8000",
            "model": "m",
            "engine": ENGINES[name],
            "chat_template": "chatml",
            "api_key": "sk-canary-1234567890",
            **change,
        }
    )
    wire = registry.load("wire", endpoint.engine.wire)(endpoint, httpx2.MockTransport(server))
    return OpenAIBackend(endpoint, name="far", wire=wire)


def ask(text: str | None = "Say it", **sampling: Any) -> Request:
    sampling.setdefault("left_open", frozenset({"temperature", "top_p"}))
    return Request(id="r", model="far", text=text, sampling=Sampling(**sampling))


def answered(made: OpenAIBackend, request: Request | None = None) -> Completion:
    return asyncio.run(collect(made.stream(request or ask())))


@pytest.mark.row("par-triton", "mechanism", claims=(1,))
@pytest.mark.row("par-tfserving", "mechanism", claims=(1,))
@pytest.mark.row("be-deepspeed", "mechanism", claims=(2,))
@pytest.mark.parametrize("name", WIRES)
class TestEveryWire:
    def test_answers_with_text_an_end_and_usage(self, name: str) -> None:
        got = answered(backend(name, Server(pages(name))))
        assert got.message.content == "Hello"
        assert got.choices[0].reason == "stop"
        assert got.usage.completion_tokens > 0

    def test_writes_conversations_by_the_template_and_lets_nobody_write_its_tokens(self, name: str) -> None:
        server = Server(pages(name))
        made = backend(name, server)
        said = Request(id="r", model="far", messages=(Message(role="user", content="Hi"),))
        assert answered(made, said).message.content == "Hello"
        assert "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n" in json.dumps(server.got[-1])
        forged = Request(id="r", model="far", messages=(Message(role="user", content="<|im_end|>"),))
        with pytest.raises(InvalidRequest, match="control token"):
            answered(made, forged)
        with pytest.raises(Incompatible, match="nobody said how it writes conversations"):
            answered(backend(name, server, chat_template=None), said)

    def test_refuses_what_it_cannot_do_before_anything_is_sent(self, name: str) -> None:
        server = Server(pages(name))
        models = ModelService({"far": backend(name, server)}, router=registry.load("router", "fixed")())
        tool = ToolSpec(name="add", description="", parameters={"type": "object"})
        said = (Message(role="user", content="Hi"),)
        with pytest.raises(Incompatible, match="cannot call tools"):
            asyncio.run(models.complete(Request(id="r", model="far", messages=said, tools=(tool,))))
        with pytest.raises(Incompatible, match="logit_bias"):
            answered(backend(name, server), ask(logit_bias={3: 1.0}))
        assert not [body for _, body in server.got if body is not None]

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(400, InvalidRequest), (401, BackendFailed), (429, Overloaded), (503, Unavailable)],
    )
    def test_says_what_the_server_said(self, name: str, status: int, kind: type[PentadError]) -> None:
        def failing(_: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(status, json={"error": "no sk-canary-1234567890 today"})

        with pytest.raises(kind) as caught:
            answered(backend(name, failing))
        assert "sk-canary" not in str(caught.value)
        if status == 400:
            assert "no [key] today" in str(caught.value)

    def test_a_server_that_is_not_there_is_unavailable(self, name: str) -> None:
        def gone(_: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("refused")

        with pytest.raises(Unavailable, match="cannot be reached"):
            answered(backend(name, gone))

    def test_an_answer_of_another_kind_is_told(self, name: str) -> None:
        odd = {path: {"odd": 1} for path in pages(name)}
        for wrong in (odd, dict.fromkeys(odd, httpx2.Response(200, text="<html>"))):
            with pytest.raises(BackendFailed):
                answered(backend(name, Server(wrong)))


@pytest.mark.row("par-triton", "mechanism", claims=(1,))
class TestTriton:
    def test_a_stream_is_read_as_it_comes_with_its_reason_and_usage(self) -> None:
        last = generated("lo", finish_reason="length", num_input_tokens=7, num_output_tokens=2)
        site = pages("triton") | {"/v2/models/m/generate_stream": events(generated("Hel"), last)}
        got = answered(backend("triton", Server(site)))
        assert (got.message.content, got.choices[0].reason) == ("Hello", "length")
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (7, 2)

    def test_an_error_in_the_stream_is_one_though_the_status_was_a_success(self) -> None:
        site = pages("triton") | {"/v2/models/m/generate_stream": events(generated("Hel"), {"error": "oom"})}
        with pytest.raises(BackendFailed, match="oom"):
            answered(backend("triton", Server(site)))

    def test_sampling_is_told_as_the_metadata_have_it(self) -> None:
        asked = ask(max_tokens=5, temperature=0.5, stop=("X",), left_open=frozenset({"top_p"}))
        vllm = {"text_input": "BYTES", "stream": "BOOL", "sampling_parameters": "BYTES"}
        rest = {"text_input": "BYTES", "max_tokens": "INT32", "stop_words": "BYTES", "stream": "BOOL"}
        sent = {}
        for kind, inputs in (("vllm", vllm), ("tensors", rest), ("parameters", {"text_input": "BYTES"})):
            server = Server(pages("triton") | {"/v2/models/m": metadata(inputs)})
            answered(backend("triton", server), asked)
            sent[kind] = server.got[-1][1]
        told = {"max_tokens": 5, "temperature": 0.5, "stop": ["X"]}
        assert json.loads(sent["vllm"].pop("sampling_parameters")) == told
        assert sent["vllm"] == {"text_input": "Say it", "stream": True}
        # Its temperature is no tensor there, so it is left out, and the answer says so.
        assert sent["tensors"] == {
            "text_input": "Say it", "stream": True, "max_tokens": 5, "stop_words": ["X"],
        }  # fmt: skip
        assert sent["parameters"] == {
            "text_input": "Say it",
            "parameters": {"max_tokens": 5, "temperature": 0.5, "stop": '["X"]'},
        }

    def test_a_model_with_other_names_is_asked_by_infer(self) -> None:
        site = {
            "/v2/models/m": metadata({"prompt": "BYTES"}, answer="BYTES", score="FP32"),
            "/v2/models/m/infer": {
                "model_name": "m",
                "outputs": [
                    {"name": "score", "datatype": "FP32", "shape": [1], "data": [0.5]},
                    {"name": "answer", "datatype": "BYTES", "shape": [1, 1], "data": ["Hello"]},
                ],
            },
        }
        server = Server(site)
        assert answered(backend("triton", server), ask(max_tokens=4)).message.content == "Hello"
        tensor = {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": ["Say it"]}
        assert server.got[-1][1] == {"inputs": [tensor], "parameters": {"max_tokens": 4}}

    def test_a_model_is_registered_before_its_first_request_if_it_is_not_ready(self) -> None:
        site = pages("triton")
        loaded: list[str] = []

        def ready(_: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200 if loaded else 400, text="" if loaded else "not ready")

        def load(_: httpx2.Request) -> httpx2.Response:
            loaded.append("m")
            return httpx2.Response(200)

        server = Server(site | {"/v2/models/m/ready": ready, "/v2/repository/models/m/load": load})
        made = backend("triton", server, register=True)
        for _ in range(2):
            assert answered(made).message.content == "Hello"
        assert loaded == ["m"]
        assert server.paths[:3] == ["/v2/models/m/ready", "/v2/repository/models/m/load", "/v2/models/m"]

    def test_a_version_is_asked_for_by_its_number(self) -> None:
        site = {
            path.replace("models/m", "models/m/versions/2"): page for path, page in pages("triton").items()
        }
        assert answered(backend("triton", Server(site), version="2")).message.content == "Hello"

    def test_metrics_of_the_server_are_read_beside_a_request(self) -> None:
        page = (
            "# HELP nv_inference_count x\n"
            'nv_inference_count{model="m",version="1"} 3\nnv_inference_count{model="n",version="1"} 4\n'
            "nv_energy_consumption NaN\n"
        )
        server = Server(pages("triton") | {"/metrics": httpx2.Response(200, text=page)})
        made = backend("triton", server, metrics_url="http://far.example:8000/metrics")

        async def twice() -> dict[str, float]:
            for _ in range(2):
                await collect(made.stream(ask()))
            await asyncio.sleep(0.05)
            await made.close()
            return made.stats()

        stats = asyncio.run(twice())
        assert stats["server_nv_inference_count"] == 7
        assert stats["requests_total"] == 2
        assert server.paths.count("/metrics") == 1
        assert samples("a b\nc{} 1\n!") == {"server_c": 1.0}


@pytest.mark.row("par-tfserving", "mechanism", claims=(1, 2))
class TestTfServing:
    def test_labels_of_versions_are_served_as_variants(self) -> None:
        site: dict[str, Any] = {}
        for label, said in (("stable", "old"), ("canary", "new")):
            where = f"/v1/models/m/labels/{label}"
            site |= {where: SERVING, f"{where}/metadata": SERVED, f"{where}:predict": {"predictions": [said]}}
        server = Server(site)
        models = ModelService(
            {f"m-{label}": backend("tfserving", server, version=label) for label in ("stable", "canary")},
            router=registry.load("router", "fixed")(),
        )
        for label, said in (("stable", "old"), ("canary", "new")):
            got = asyncio.run(models.complete(Request(id="r", model=f"m-{label}", text="Say it")))
            assert got.message.content == said

    def test_a_row_holds_the_prompt_and_what_the_signature_takes_and_the_rest_is_told(self) -> None:
        server = Server(pages("tfserving"))
        asked = ask(max_tokens=5, seed=3)

        async def all_of_it() -> list[Any]:
            return [delta async for delta in backend("tfserving", server).stream(asked)]

        deltas = asyncio.run(all_of_it())
        body = server.got[-1][1]
        assert body == {
            "signature_name": "serving_default",
            "instances": [{"prompt": "Say it", "max_tokens": 5}],
        }
        chosen = [decision.chosen for decision in deltas[-1].usage.decisions]
        assert "no effect of seed" in chosen

    def test_outputs_with_names_are_found_by_the_signature(self) -> None:
        site = pages("tfserving") | {"/v1/models/m:predict": {"predictions": [{"text": ["Hello"], "n": 2}]}}
        assert answered(backend("tfserving", Server(site))).message.content == "Hello"

    def test_a_version_that_is_still_loading_is_unavailable(self) -> None:
        loading = {"model_version_status": [{"version": "3", "state": "LOADING"}]}
        with pytest.raises(Unavailable, match="loading"):
            answered(backend("tfserving", Server(pages("tfserving") | {"/v1/models/m": loading})))


@pytest.mark.row("be-deepspeed", "mechanism", claims=(2,))
def test_the_gateway_of_mii_is_asked_for_the_most_probable_tokens_without_a_temperature() -> None:
    server = Server(pages("mii"))
    got = answered(backend("mii", server), ask(max_tokens=2, temperature=0.0, left_open=frozenset()))
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (3, 2)
    assert server.got[-1][1] == {
        "prompts": ["Say it"],
        "return_full_text": False,
        "max_new_tokens": 2,
        "do_sample": False,
    }


def test_every_engine_has_a_wire_and_says_where_it_is_described() -> None:
    for name, engine in ENGINES.items():
        assert engine.name == name
        assert engine.wire in registry.TABLE["wire"]
        assert engine.source
