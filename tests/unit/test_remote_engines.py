"""Engines that speak OpenAI's protocol in their own way, each by an answer in the form of its source."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from pentad.application.config import RemoteBackend
from pentad.application.remote_backend import remote_backend
from pentad.errors import Incompatible, UnknownName
from pentad.execution.backend import Completion
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.engines import ENGINES
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.types import Message, OutputFormat, Request, Sampling, ToolSpec

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def delta(content: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content} if content is not None else {}
    choice = {"index": 0, "delta": said, "finish_reason": finish, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**delta(None), "choices": [], "usage": told | more}


RECORDED: dict[str, list[dict[str, Any]]] = {
    # MLC-LLM: the usage comes last, with figures of its own in `extra`.
    "mlc": [
        delta("", system_fingerprint="", logprobs=None) | {"system_fingerprint": ""},
        delta("Hello"),
        delta("", "stop"),
        usage(3, 2, extra={"prefill_tokens_per_s": 90.0, "decode_tokens_per_s": 30.0}),
    ],
    "mnn": [delta("Hel"), delta("lo"), delta(None, "stop")],
    # FastChat: the role comes first and alone, the last chunk has an empty delta, no usage is ever sent.
    "fastchat": [
        {**delta(None), "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]},
        {**delta(None), "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
        {**delta(None), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ],
    "deepspeed": [delta("Hel"), delta("lo"), delta(None, "stop")],
    "openvino": [delta("Hel"), delta("lo"), delta("", "stop"), usage(3, 2)],
    "mllm": [delta("Hello"), delta("", "stop")],
    "tensorrt-llm": [
        delta("", logprobs=None),
        delta("Hello", logprobs=None),
        delta("", "stop", stop_reason=None, disaggregated_params=None),
        usage(3, 2, prompt_tokens_details={"cached_tokens": 1}),
    ],
    "vllm": [delta(""), delta("Hello"), delta("", "stop", stop_reason=None), usage(3, 2)],
    "sglang": [delta(""), delta("Hello"), delta(None, "stop", matched_stop=2), usage(3, 2)],
}
"""A stream of "Hello" as each server writes it; `data: [DONE]` follows."""


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[dict[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(json.loads(request.content))
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in RECORDED[self.name]]
        text = "".join([*lines, "data: [DONE]\n\n"])
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def asked(server: Server, **request: Any) -> Completion:
    endpoint = Endpoint(base_url="http://far.example/v1", model="m", engine=ENGINES[server.name])
    made = OpenAIBackend(endpoint, name="far", transport=httpx2.MockTransport(server))
    models = ModelService({"far": made}, router=Fixed())
    said = (Message(role="user", content="Say it"),)
    return asyncio.run(models.complete(Request(id="r", model="far", messages=said, **request)))


@pytest.mark.row("be-mlc", "mechanism", claims=(1,))
@pytest.mark.row("be-mnn", "mechanism", claims=(2,))
@pytest.mark.row("be-fastchat", "mechanism", claims=(1,))
@pytest.mark.row("be-deepspeed", "mechanism", claims=(2,))
@pytest.mark.row("be-mllm", "mechanism", claims=(1,))
@pytest.mark.row("be-tensorrt-llm", "mechanism", claims=(1,))
@pytest.mark.parametrize("name", RECORDED)
class TestEveryEngine:
    def test_an_answer_in_its_form_is_read(self, name: str) -> None:
        got = asked(Server(name), sampling=Sampling(max_tokens=8))
        assert (got.message.content, got.choices[0].reason) == ("Hello", "stop")
        assert got.usage.completion_tokens == 2
        estimated = [d for d in got.usage.decisions if d.subject == "usage"]
        assert bool(estimated) == ("usage" not in RECORDED[name][-1])

    def test_fields_that_it_does_not_know_are_not_sent(self, name: str) -> None:
        server = Server(name)
        asked(server, sampling=Sampling(max_tokens=8))
        known = {"model", "messages", "stream", "temperature", "top_p", "max_tokens", "stream_options"}
        assert server.sent[0].keys() <= known
        assert ("stream_options" in server.sent[0]) == ENGINES[name].stream_usage

    def test_what_it_cannot_do_is_refused_and_nothing_is_sent(self, name: str) -> None:
        server, can = Server(name), ENGINES[name]
        tool = ToolSpec(name="add", description="", parameters={"type": "object"})
        for able, request in (
            (can.tools, {"tools": (tool,)}),
            ("json_schema" in can.formats, {"format": OutputFormat(kind="json_schema", value=SCHEMA)}),
            (can.logprobs, {"sampling": Sampling(logprobs=1)}),
            (can.vllm_fields, {"sampling": Sampling(top_k=3)}),
        ):
            before = len(server.sent)
            if able:
                asked(server, **request)
            else:
                with pytest.raises(Incompatible):
                    asked(server, **request)
            assert len(server.sent) - before == able


@pytest.mark.row("be-mlc", "mechanism", claims=(1,))
def test_mlc_gets_a_schema_as_text_beside_its_type() -> None:
    server = Server("mlc")
    asked(server, format=OutputFormat(kind="json_schema", value=SCHEMA))
    sent = server.sent[0]["response_format"]
    assert sent["type"] == "json_object"
    assert json.loads(sent["schema"]) == SCHEMA


@pytest.mark.row("be-fastchat", "mechanism", claims=(1,))
def test_a_seed_that_fastchat_drops_is_told() -> None:
    got = asked(Server("fastchat"), sampling=Sampling(seed=3))
    assert [d.chosen for d in got.usage.decisions if d.subject == "sampling"] == ["no effect of seed"]
    assert not [d for d in asked(Server("vllm"), sampling=Sampling(seed=3)).usage.decisions if d.notice]


def test_an_engine_that_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown engine 'tensorrt'") as caught:
        remote_backend(RemoteBackend(name="x", url="http://x/v1", engine="tensorrt"))
    assert "tensorrt-llm" in (caught.value.hint or "")
