"""OpenAIBackend against a scripted endpoint, through the real client, without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from pentad.content import joined, media
from pentad.errors import (
    BackendFailed,
    ContextLengthExceeded,
    Forbidden,
    Incompatible,
    InvalidRequest,
    MissingExtra,
    Overloaded,
    PentadError,
    Unavailable,
)
from pentad.execution.backend import Completion, TextDelta, collect
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.backends.openai_usage import media_tokens
from pentad.model.prices import Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.types import (
    Message,
    OutputFormat,
    Request,
    RunContext,
    Sampling,
    ToolCall,
    ToolChoice,
    ToolSpec,
)

KEY = "sk-canary-1234567890"
Answer = Callable[[httpx2.Request], httpx2.Response]


def endpoint(**change: Any) -> Endpoint:
    return Endpoint(
        **{
            "base_url": "http://far.example:8000/v1",
            "model": "big",
            "api_key": KEY,
            "timeout_s": 7.0,
            **change,
        }
    )


def backend(answer: Answer, **change: Any) -> OpenAIBackend:
    return OpenAIBackend(endpoint(**change), name="far", transport=httpx2.MockTransport(answer))


def sse(*chunks: dict[str, Any] | str) -> httpx2.Response:
    lines = [f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines))


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": [choice]}


def usage(prompt: int = 9, completion: int = 2, **details: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": {**counts, "prompt_tokens_details": details or None}}


def ask(**change: Any) -> Request:
    if not {"text", "token_ids"} & change.keys():
        change.setdefault("messages", (Message(role="user", content="hi"),))
    return Request(id="r1", model="far", **change)


def answered(answer: Answer, request: Request | None = None, **change: Any) -> Completion:
    return asyncio.run(collect(backend(answer, **change).stream(request or ask())))


def simple(_: httpx2.Request) -> httpx2.Response:
    return sse(
        chunk(content="Hel"), chunk(content="lo"), chunk(finish="stop"), usage(cached_tokens=4), "[DONE]"
    )


def test_text_reasoning_and_usage_are_read() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return sse(
            chunk(role="assistant", content=""),
            chunk(reasoning_content="hm"),
            chunk(content="Hel"),
            chunk(content="lo"),
            chunk(finish="stop"),
            usage(cached_tokens=4),
            "[DONE]",
        )

    got = answered(answer)
    assert (got.message.content, got.choices[0].reasoning, got.choices[0].reason) == ("Hello", "hm", "stop")
    assert (got.usage.prompt_tokens, got.usage.cached_tokens, got.usage.completion_tokens) == (9, 4, 2)
    assert [span.name for span in got.usage.spans] == ["remote_first_token", "remote_stream"]


@pytest.mark.row("ml-gemini15", "mechanism", claims=(2,))
def test_a_million_tokens_are_counted_and_billed_as_the_endpoint_tells() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        told = usage(1_000_000, 50, cached_tokens=900_000)
        return sse(chunk(content="So."), chunk(finish="stop"), told, "[DONE]")

    text = "word " * 1_000_000
    price = Price(prompt=1.25, completion=10.0, cached=0.3125)
    models = ModelService({"far": backend(answer)}, router=Fixed(), prices={"far": price})
    got = asyncio.run(models.complete(ask(messages=(Message(role="user", content=text),))))
    assert (got.usage.prompt_tokens, got.usage.cached_tokens) == (1_000_000, 900_000)
    assert got.usage.cost == pytest.approx(0.1 * 1.25 + 0.9 * 0.3125 + 50e-6 * 10)


def test_calls_are_read_with_ids_of_ours_where_the_endpoint_sends_none() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        def call(index: int, **function: str) -> dict[str, Any]:
            return {"index": index, "function": function}

        return sse(
            chunk(tool_calls=[call(3, name="add", arguments="")]),
            chunk(tool_calls=[call(3, arguments='{"a"')]),
            chunk(tool_calls=[call(3, arguments=": 1}")]),
            chunk(tool_calls=[{"id": "call_x", **call(5, name="sub", arguments="{}")}]),
            chunk(finish="tool_calls"),
            "[DONE]",
        )

    calls = answered(answer).message.tool_calls
    assert [(c.name, c.arguments) for c in calls] == [("add", '{"a": 1}'), ("sub", "{}")]
    assert calls[0].id.startswith("call_")
    assert calls[1].id == "call_x"


def test_log_probabilities_are_read() -> None:
    entry = {"token": "é", "bytes": [195, 169], "logprob": -0.1, "top_logprobs": []}

    def answer(_: httpx2.Request) -> httpx2.Response:
        first = chunk(content="é")
        first["choices"][0]["logprobs"] = {"content": [entry], "refusal": None}
        return sse(first, chunk(finish="stop"), usage(), "[DONE]")

    got = answered(answer, ask(sampling=Sampling(logprobs=0)))
    assert [(e.text, e.data, e.logprob) for e in got.choices[0].logprobs] == [("é", b"\xc3\xa9", -0.1)]


def test_everything_asked_is_sent() -> None:
    seen: dict[str, Any] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.update(json.loads(request.content), path=request.url.path)
        return simple(request)

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    request = ask(
        messages=(
            Message(role="system", content="s"),
            Message(role="assistant", tool_calls=(ToolCall(id="c1", name="add", arguments="{}"),)),
            Message(role="tool", content="2", tool_call_id="c1"),
        ),
        tools=(ToolSpec(name="add", description="adds", parameters=schema),),
        tool_choice=ToolChoice(mode="named", name="add", parallel=False),
        format=OutputFormat(kind="json_schema", value=schema),
        sampling=Sampling(
            temperature=0.3,
            top_p=0.9,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            logit_bias={5: -1.0},
            seed=7,
            max_tokens=11,
            stop=("x",),
            logprobs=2,
            top_k=4,
            min_tokens=1,
        ),
        template_options={"enable_thinking": False},
    )
    answered(answer, request, vllm_fields=True, extra_body={"user": "me"})
    assert seen.pop("path") == "/v1/chat/completions"
    messages = seen.pop("messages")
    assert messages[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
    }
    assert messages[2] == {"role": "tool", "content": "2", "tool_call_id": "c1"}
    function = {"name": "add", "description": "adds", "parameters": schema}
    assert seen == {
        "model": "big",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.3,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {"5": -1.0},
        "seed": 7,
        "max_tokens": 11,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "top_k": 4,
        "min_tokens": 1,
        "user": "me",
        "chat_template_kwargs": {"enable_thinking": False},
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        },
    }


def test_a_plain_text_prompt_goes_to_completions() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/completions"
        assert json.loads(request.content)["prompt"] == "Once"
        choice = {"index": 0, "text": " upon", "finish_reason": "length", "logprobs": None}
        return sse(
            {"id": "c", "object": "text_completion", "created": 1, "model": "big", "choices": [choice]}
        )

    got = answered(answer, ask(text="Once"))
    assert (got.message.content, got.choices[0].reason) == (" upon", "length")


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ask(sampling=Sampling(top_k=5)), "top_k"),
        (ask(format=OutputFormat(kind="regex", value="a")), "structured_outputs"),
        (ask(token_ids=(1,)), "prompt"),
        (ask(text="x", sampling=Sampling(logprobs=1)), "logprobs"),
    ],
)
def test_what_the_endpoint_cannot_be_told_is_refused_not_dropped(request_: Request, param: str) -> None:
    with pytest.raises(Incompatible) as caught:
        answered(simple, request_)
    assert caught.value.param == param


def test_local_data_never_leaves() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise AssertionError("a request was sent")

    with pytest.raises(Forbidden):
        answered(answer, ask(context=RunContext(data_label="local")))
    same_machine = answered(simple, ask(context=RunContext(data_label="local")), remote=False)
    assert same_machine.message.content == "Hello"


def refusal(status: int, code: str | None = None, **headers: str) -> Answer:
    body = {"error": {"message": f"no, {KEY} is wrong", "type": "t", "param": "messages", "code": code}}
    return lambda _: httpx2.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(401), BackendFailed),
        (refusal(403), BackendFailed),
        (refusal(404), BackendFailed),
        (refusal(400), InvalidRequest),
        (refusal(422), InvalidRequest),
        (refusal(400, "context_length_exceeded"), ContextLengthExceeded),
        (refusal(429, **{"retry-after": "12"}), Overloaded),
        (refusal(503), Unavailable),
        (refusal(500), BackendFailed),
        (lambda _: httpx2.Response(200, text="<html>"), BackendFailed),
        (lambda _: sse("{not json"), BackendFailed),
        (lambda _: sse(chunk(content="a"), "[DONE]"), BackendFailed),
        (lambda _: sse(chunk(finish="content_filter"), "[DONE]"), BackendFailed),
        (lambda _: sse(chunk(index=7, content="a"), "[DONE]"), BackendFailed),
        (lambda _: sse(chunk(finish="stop"), usage(prompt=-5), "[DONE]"), BackendFailed),
        (lambda _: sse(chunk(tool_calls=[{"index": 0, "function": {}}]), "[DONE]"), BackendFailed),
    ],
)
def test_errors_become_ours_and_never_show_the_key(answer: Answer, error: type[PentadError]) -> None:
    with pytest.raises(PentadError) as caught:
        answered(answer)
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__cause__)
    assert caught.value.__suppress_context__
    if isinstance(caught.value, Overloaded) and error is Overloaded:
        assert caught.value.retry_after_s == 12


@pytest.mark.parametrize(
    ("failure", "says"),
    [(httpx2.ConnectError("refused"), "cannot be reached"), (httpx2.ReadTimeout("slow"), "within 7 s")],
)
def test_an_endpoint_that_is_not_there_is_unavailable(failure: Exception, says: str) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise failure

    with pytest.raises(Unavailable, match=says):
        answered(answer)


def test_missing_usage_is_estimated_and_marked() -> None:
    got = answered(lambda _: sse(chunk(content="x" * 40), chunk(finish="stop"), "[DONE]"))
    assert got.usage.completion_tokens == 10
    assert got.usage.decisions[0].chosen == "estimated"


def test_repeated_failures_show_in_the_health_check_until_one_succeeds() -> None:
    answers: list[Answer] = [refusal(500)] * 3 + [simple]
    far = backend(lambda request: answers.pop(0)(request))

    async def run() -> list[str | None]:
        seen = []
        for _ in range(3):
            with pytest.raises(BackendFailed):
                await collect(far.stream(ask()))
            seen.append(far.check())
        await collect(far.stream(ask()))
        await far.close()
        return [*seen, far.check()]

    first, second, third, last = asyncio.run(run())
    assert (first, second, last) == (None, None, None)
    assert "failed (500)" in (third or "")
    assert KEY not in (third or "")
    assert far.stats()["failures_total"] == 3


def test_closing_the_stream_closes_the_connection() -> None:
    closed: list[bool] = []

    class Slow(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield f"data: {json.dumps(chunk(content='a'))}\n\n".encode()
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            closed.append(True)

    async def run() -> None:
        far = backend(
            lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Slow())
        )
        stream = far.stream(ask())
        assert await anext(stream) == TextDelta(text="a")
        await stream.aclose()

    asyncio.run(run())
    assert closed


def test_tokens_cannot_be_counted_without_the_tokenizer() -> None:
    with pytest.raises(Incompatible, match="tokenizer"):
        backend(simple).count_tokens(ask())


def test_the_key_is_not_in_the_endpoints_text() -> None:
    assert KEY not in repr(endpoint())
    with pytest.raises(ValueError, match="base_url"):
        endpoint(base_url="far.example")


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pentad\[openai\]"):
        OpenAIBackend(endpoint())


@pytest.mark.row("ml-gpt4", "mechanism", claims=(1,))
@pytest.mark.row("ml-gemini", "mechanism", claims=(1,))
def test_parts_go_to_the_endpoint_in_its_form() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(json.loads(request.content))
        return sse(chunk(content="x"), chunk(finish="stop"), usage(), "[DONE]")

    png, pdf = b"\x89PNG\r\n\x1a\n", b"%PDF-1"
    parts = [
        "Look:",
        media("image", "image/png", png, detail="low"),
        media("audio", "audio/mpeg", b"ID3x"),
        media("file", "application/pdf", pdf, name="a.pdf"),
        "What is it?",
    ]
    text, found = joined(parts)
    seeing = backend(answer, media=frozenset({"image", "audio", "file"}))
    assert seeing.capabilities.media == {"image", "audio", "file"}
    request = Request(id="r", model="far", messages=(Message(role="user", content=text, media=found),))
    asyncio.run(collect(seeing.stream(request)))
    assert asked[0]["messages"][0]["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "SUQzeA==", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}},
        {"type": "text", "text": "What is it?"},
    ]
    with pytest.raises(Incompatible, match="add audio to `media` of this model"):
        asyncio.run(collect(backend(answer, media=frozenset({"image"})).stream(request)))
    assert len(asked) == 1


def test_parts_are_reserved_for_where_nobody_here_can_count_them() -> None:
    png = media("image", "image/png", b"\x89PNG\r\n\x1a\n")
    sound = media("audio", "audio/wav", b"RIFF\0\0\0\0WAVE" + bytes(8000))
    request = Request(id="r", model="far", messages=(Message(role="user", media=(png, png, sound)),))
    assert media_tokens(request) == 2 * 1600 + 11
    assert media_tokens(ask()) == 0
