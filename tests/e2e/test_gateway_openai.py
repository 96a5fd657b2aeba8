"""The stock OpenAI client, unmodified, against a live gateway."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from gateway_support import HELLO, HashEmbedder, Live, scripted
from pentad.errors import BackendFailed, ContextLengthExceeded, Overloaded
from pentad.execution.backend import ChoiceDone, TextDelta, TokenLogprob
from pentad.testing.backends import Turn
from pentad.types import ToolCall, Usage

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def client_of(live: Live, **options: object) -> OpenAI:
    return OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0, **options)  # type: ignore[arg-type]


@pytest.mark.row("app-chat", "mechanism", claims=(1,))
def test_a_chat_is_answered_and_its_history_reaches_the_model() -> None:
    turns: list[Turn] = [["I am", " here."], lambda r: [f"You said: {r.messages[1].content}"]]
    with scripted(*turns) as live, client_of(live) as client:
        history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "My name is Ada."}]
        first = client.chat.completions.create(model="scripted", messages=history)  # type: ignore[arg-type]
        history += [{"role": "assistant", "content": first.choices[0].message.content or ""}]
        history += [{"role": "user", "content": "What is my name?"}]
        second = client.chat.completions.create(model="scripted", messages=history)  # type: ignore[arg-type]
        assert first.choices[0].message.content == "I am here."
        assert first.choices[0].finish_reason == "stop"
        assert first.usage is not None
        assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens > 0
        assert second.choices[0].message.content == "You said: My name is Ada."
        assert live.backend is not None
        roles = [message.role for message in live.backend.requests[1].messages or ()]
        assert roles == ["system", "user", "assistant", "user"]


@pytest.mark.row("app-chat", "mechanism", claims=(1,))
def test_a_streamed_chat_adds_up_to_the_plain_one() -> None:
    turn = ["Hel", "lo ", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", " שלום", ""]
    with scripted(turn, turn) as live, client_of(live) as client:
        plain = client.chat.completions.create(model="scripted", messages=HELLO)  # type: ignore[arg-type]
        chunks = list(
            client.chat.completions.create(  # type: ignore[call-overload]
                model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(c.choices[0].finish_reason is None for c in chunks[:-2])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_include_usage_has_no_usage_chunk() -> None:
    with scripted(["Hi"]) as live, client_of(live) as client:
        chunks = list(client.chat.completions.create(model="scripted", messages=HELLO, stream=True))  # type: ignore[call-overload]
    assert all(chunk.choices for chunk in chunks)


def test_tool_calls_streamed_equal_tool_calls_plain() -> None:
    turn = [
        "Let me see.",
        ToolCall(id="call_1", name="add", arguments='{"a": 1, "b": 2}'),
        ToolCall(id="call_2", name="add", arguments='{"a": 3, "b": 4}'),
    ]
    with scripted(turn, turn, turn) as live, client_of(live) as client:
        plain = client.chat.completions.create(model="scripted", messages=HELLO, tools=[ADD])  # type: ignore[arg-type,list-item]
        raw = list(
            client.chat.completions.create(model="scripted", messages=HELLO, tools=[ADD], stream=True)  # type: ignore[call-overload]
        )
        with client.chat.completions.stream(model="scripted", messages=HELLO, tools=[ADD]) as stream:  # type: ignore[arg-type,list-item]
            folded = stream.get_final_completion()
    assert plain.choices[0].finish_reason == "tool_calls"
    calls = plain.choices[0].message.tool_calls or []
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls] == [  # type: ignore[union-attr]
        ("call_1", "add", {"a": 1, "b": 2}),
        ("call_2", "add", {"a": 3, "b": 4}),
    ]
    streamed = folded.choices[0].message
    assert streamed.content == plain.choices[0].message.content == "Let me see."
    assert [(c.id, c.function.name, c.function.arguments) for c in streamed.tool_calls or []] == [
        (c.id, c.function.name, c.function.arguments)  # type: ignore[union-attr]
        for c in calls
    ]
    deltas = [call for chunk in raw for call in chunk.choices[0].delta.tool_calls or []]
    assert all(call.index is not None for call in deltas)
    assert [call.id for call in deltas if call.id] == ["call_1", "call_2"]
    assert [call.function.name for call in deltas if call.function.name] == ["add", "add"]


def test_tool_choice_and_results_reach_the_model() -> None:
    with scripted(["3"]) as live, client_of(live) as client:
        client.chat.completions.create(
            model="scripted",
            messages=[  # type: ignore[list-item]
                *HELLO,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "3"},
            ],
            tools=[ADD],  # type: ignore[list-item]
            tool_choice={"type": "function", "function": {"name": "add"}},
            parallel_tool_calls=False,
        )
        assert live.backend is not None
        request = live.backend.requests[0]
    assert (request.tool_choice.mode, request.tool_choice.name) == ("named", "add")
    assert request.tool_choice.parallel is False
    assert request.messages is not None
    assert request.messages[1].tool_calls[0].id == "c1"
    assert request.messages[2].tool_call_id == "c1"
    assert request.tools[0].parameters["required"] == ["a", "b"]


class City(BaseModel):
    name: str
    people: int


def test_parse_returns_the_typed_object_and_sends_its_schema() -> None:
    with scripted(['{"name": "Ghent", ', '"people": 265000}']) as live, client_of(live) as client:
        parsed = client.chat.completions.parse(model="scripted", messages=HELLO, response_format=City)  # type: ignore[arg-type]
        assert live.backend is not None
        chosen = live.backend.requests[0].format
    assert parsed.choices[0].message.parsed == City(name="Ghent", people=265000)
    assert chosen.kind == "json_schema"
    assert chosen.value["required"] == ["name", "people"]


def test_the_async_client_streams_many_chats_at_once() -> None:
    async def one(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)  # type: ignore[call-overload]
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
            return await asyncio.gather(*(one(client) for _ in range(20)))

    with scripted(["a", "b", "c"], repeat=True) as live:
        assert asyncio.run(all_of_them(live.url)) == ["abc"] * 20


def test_choices_logprobs_and_reasoning_arrive() -> None:
    logprobs = (TokenLogprob(text="x", data=b"x", logprob=-0.5, alternatives=(("y", b"y", -1.0),)),)
    turn = [
        TextDelta(text="hm", kind="reasoning"),
        TextDelta(text="x", logprobs=logprobs),
        TextDelta(text="z", choice=1),
        ChoiceDone(reason="length", choice=1),
        Usage(prompt_tokens=5, cached_tokens=4, completion_tokens=3, reasoning_tokens=1),
    ]
    with scripted(turn, turn) as live, client_of(live) as client:
        plain = client.chat.completions.create(model="scripted", messages=HELLO, n=2)  # type: ignore[arg-type]
        chunks = list(client.chat.completions.create(model="scripted", messages=HELLO, n=2, stream=True))  # type: ignore[call-overload]
    first, second = plain.choices
    assert first.message.reasoning_content == first.message.reasoning == "hm"  # type: ignore[attr-defined]
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert first.logprobs.content[0].bytes == [120]
    assert first.logprobs.content[0].top_logprobs[0].logprob == -1.0
    assert (second.message.content, second.finish_reason) == ("z", "length")
    assert plain.usage is not None
    assert plain.usage.prompt_tokens_details is not None
    assert plain.usage.prompt_tokens_details.cached_tokens == 4
    assert plain.usage.completion_tokens_details is not None
    assert plain.usage.completion_tokens_details.reasoning_tokens == 1
    roles = [c.choices[0].index for c in chunks if c.choices[0].delta.role == "assistant"]
    assert roles == [0, 1]


def test_completions_serve_several_prompts_at_once() -> None:
    with scripted(lambda r: ["<", r.text or "", ">"], repeat=True) as live, client_of(live) as client:
        plain = client.completions.create(model="scripted", prompt=["one", "two"], max_tokens=5)
        streamed: dict[int, str] = {0: "", 1: ""}
        for chunk in client.completions.create(model="scripted", prompt=["one", "two"], stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        ids = client.completions.create(model="scripted", prompt=[1, 2, 3])
        assert live.backend is not None
        assert live.backend.requests[-1].token_ids == (1, 2, 3)
    assert [choice.text for choice in plain.choices] == ["<one>", "<two>"] == list(streamed.values())
    assert plain.usage is not None
    assert plain.usage.prompt_tokens == 2
    assert ids.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_arrive_in_every_encoding(encoding: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    with scripted() as live, client_of(live) as client:
        answer = client.embeddings.create(model="vectors", input=["one two", "three"], **options)  # type: ignore[arg-type]
    expected = HashEmbedder().embed_counted(["one two", "three"])[0]
    got = [item.embedding for item in answer.data]
    if encoding == "base64":
        assert all(isinstance(vector, str) for vector in got)
    else:
        assert [pytest.approx(v, abs=1e-6) for v in expected] == got
    assert answer.usage.prompt_tokens == 3


def test_embeddings_of_other_sizes_or_of_token_ids_are_refused_with_the_reason() -> None:
    with scripted() as live, client_of(live) as client:
        with pytest.raises(openai.BadRequestError, match="vectors of 4 numbers, not 3"):
            client.embeddings.create(model="vectors", input="x", dimensions=3)
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.embeddings.create(model="vectors", input=[1, 2])
        with pytest.raises(openai.NotFoundError, match="known: vectors"):
            client.embeddings.create(model="scripted", input="x")


def test_models_are_listed_and_found_by_name() -> None:
    with scripted() as live, client_of(live) as client:
        assert [model.id for model in client.models.list()] == ["scripted", "vectors"]
        assert client.models.retrieve("scripted").id == "scripted"
        with pytest.raises(openai.NotFoundError, match="known: scripted, vectors"):
            client.models.retrieve("org/other")


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (
            ContextLengthExceeded("9000 tokens; the context is 8192"),
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (Overloaded("the queue is full", retry_after_s=2.5), openai.RateLimitError, "overloaded"),
        (BackendFailed("it broke"), openai.InternalServerError, "backend_failed"),
    ],
)
def test_errors_before_the_first_token_are_http_errors(
    error: Exception, expected: type[openai.APIStatusError], code: str
) -> None:
    with scripted([error], [error]) as live, client_of(live) as client:
        for stream in (False, True):
            with pytest.raises(expected) as caught:
                client.chat.completions.create(model="scripted", messages=HELLO, stream=stream)  # type: ignore[call-overload]
            assert caught.value.code == code
            if isinstance(error, Overloaded):
                assert caught.value.response.headers["retry-after"] == "3"


def test_an_error_after_the_first_token_ends_the_stream_as_an_event() -> None:
    with scripted(["some"] * 3 + [BackendFailed("the backend went away")]) as live, client_of(live) as client:
        stream = client.chat.completions.create(model="scripted", messages=HELLO, stream=True)  # type: ignore[call-overload]
        pieces = []
        with pytest.raises(openai.APIError, match="the backend went away"):
            pieces.extend(stream)
        assert [chunk.choices[0].delta.content for chunk in pieces[1:]] == ["some"] * 3


def test_bugs_of_ours_are_not_told_to_clients(caplog: pytest.LogCaptureFixture) -> None:
    turns = [RuntimeError("secret path")], ["a", RuntimeError("secret path")]
    with scripted(*turns) as live, client_of(live) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="scripted", messages=HELLO)  # type: ignore[arg-type]
        with pytest.raises(openai.APIError) as in_stream:
            list(client.chat.completions.create(model="scripted", messages=HELLO, stream=True))  # type: ignore[call-overload]
    for error in (caught.value, in_stream.value):
        assert "secret" not in str(error)
        assert "request id req_" in str(error)
    assert "secret path" in caplog.text
