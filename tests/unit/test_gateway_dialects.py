"""What the clients of each dialect send beyond its core: served, or refused in words they understand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway_app import BODY_OPERATIONS, CHAT, call, chat, message_of, param_of, scripted_app
from pentad.errors import ContextLengthExceeded
from pentad.execution.backend import ChoiceDone, NoticeDelta, PromptDelta, TextDelta, TokenLogprob
from pentad.types import Decision, Request, ToolCall, Usage

ASK = {"role": "user", "content": "Say hello"}
MANY = b'{"messages":[{"role":"user","content":[%s]}]}' % b",".join([b'{"type":"text","text":"x"}'] * 120_000)


def messages(app: Any, **fields: Any) -> Any:
    """A turn in Anthropic's format."""
    return call(
        app, "POST", "/v1/messages", body={"model": "scripted", "max_tokens": 9, "messages": [ASK], **fields}
    )


def completion(app: Any, **fields: Any) -> Any:
    """A raw completion."""
    return call(app, "POST", "/v1/completions", body={"model": "scripted", "prompt": "a b", **fields})


def only(backend: Any) -> Request:
    """The one request that came down."""
    (request,) = backend.requests
    assert isinstance(request, Request)
    return request


# Bodies


def test_unread_fields_are_reported_wherever_they_stand_and_once() -> None:
    app, _ = scripted_app()
    turn = {**ASK, "weight": 1, "content": [{"type": "text", "text": "x", "hue": 1, "annotations": []}]}
    tool = {"type": "function", "function": {"name": "t", "extra": 1, "parameters": {"x-free": {"y": 1}}}}
    response = chat(
        app, messages=[turn, turn], tools=[tool], stream_options={"a": 1}, metadata={"b": 1}, odd={"c": 1}
    )
    assert response.status_code == 200
    assert response.headers["x-pentad-ignored"].split(", ") == [
        "messages[].content[].hue",
        "messages[].weight",
        "tools[].function.extra",
        "stream_options.a",
        "odd",
    ]


@pytest.mark.parametrize(("method", "path"), BODY_OPERATIONS)
def test_invalid_utf8_in_what_nobody_reads_is_400(method: str, path: str) -> None:
    known: dict[str, Any] = {"model": "scripted", "messages": [ASK], "max_tokens": 1, "tokens": [1]}
    known |= {"input": {} if "approvals" in path else "x", "prompt": {} if "responses" in path else "x"}
    known |= {"goal": "x", "agent": "x", "step": 1, "approve": True}
    app, _ = scripted_app()
    for unread in (b'"\xff": 1', b'"x": "\xff"', b'"x": {"\xc3": [1]}'):
        response = call(app, method, path, raw=json.dumps(known).encode()[:-1] + b", " + unread + b"}")
        assert response.status_code == 400
        assert message_of(response).startswith("the body is not valid JSON")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_body_of_very_many_blocks_is_refused_before_it_is_decoded(path: str) -> None:
    app, backend = scripted_app()
    response = call(app, "POST", path, raw=MANY)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("the body holds more than ")
    assert backend.requests == []


def test_braces_in_a_text_are_no_objects() -> None:
    app, backend = scripted_app()
    code = 'if (a["x"]) { b = "\\\\"; } ' * 20_000
    assert chat(app, messages=[{"role": "user", "content": code}]).status_code == 200
    assert (only(backend).messages or ())[0].content == code


@pytest.mark.parametrize(
    ("stop", "kept"),
    [("", ()), (["", "a"], ("a",)), ([f"s{i}" for i in range(20)], None), ("x" * 300, ("x" * 300,))],
    ids=["empty", "one empty", "twenty", "300 characters"],
)
def test_stop_strings_as_clients_send_them_are_taken(stop: Any, kept: tuple[str, ...] | None) -> None:
    app, backend = scripted_app()
    assert chat(app, stop=stop).status_code == 200
    assert completion(app, stop=stop).status_code == 200
    assert messages(app, stop_sequences=stop if isinstance(stop, list) else [stop]).status_code == 200
    expected = tuple(stop) if kept is None else kept
    assert [request.sampling.stop for request in backend.requests] == [expected] * 3


def test_ids_of_300_characters_are_taken() -> None:
    app, backend = scripted_app()
    id = "i" * 300
    function = {"name": "f", "arguments": "{}"}
    turns = [
        ASK,
        {"role": "assistant", "tool_calls": [{"id": id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": id, "content": "x"},
    ]
    assert chat(app, messages=turns).status_code == 200
    blocks = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]},
    ]
    assert messages(app, messages=[ASK, *blocks]).status_code == 200
    items = [
        {"type": "function_call", "id": id, "call_id": id, **function},
        {"type": "function_call_output", "call_id": id, "output": "x"},
    ]
    body = {"model": "scripted", "input": [ASK, *items]}
    assert call(app, "POST", "/v1/responses", body=body).status_code == 200
    assert [(r.messages or ())[2].tool_call_id for r in backend.requests] == [id] * 3


def test_a_nucleus_of_no_mass_is_the_most_probable_token() -> None:
    app, backend = scripted_app()
    assert chat(app, top_p=0, top_k=50).status_code == 200
    assert completion(app, top_p=0).status_code == 200
    assert messages(app, top_p=0).status_code == 200
    assert call(app, "POST", "/v1/responses", body={"input": "x", "top_p": 0}).status_code == 200
    assert {(r.sampling.top_k, r.sampling.top_p) for r in backend.requests} == {(1, 1.0)}


@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_an_absolute_target_is_its_path_and_names_the_host(scheme: str) -> None:
    from pentad.application.gateway.target import to_origin_form

    target = f"{scheme}://127.0.0.1:8000/v1/models/a%2fb"
    scope = {
        "path": target.replace("%2f", "/"),
        "raw_path": target.encode(),
        "headers": [(b"Host", b"evil.example"), (b"accept", b"*/*")],
    }
    to_origin_form(scope)
    assert (scope["path"], scope["raw_path"]) == ("/v1/models/a/b", b"/v1/models/a%2fb")
    assert scope["headers"] == [(b"accept", b"*/*"), (b"host", b"127.0.0.1:8000")]


# Chat


@pytest.mark.parametrize(
    "strict", [{}, {"response_format": {"type": "json_object", "schema": {"type": "object"}}}]
)
def test_the_schema_of_a_json_object_is_enforced(strict: dict[str, Any]) -> None:
    app, backend = scripted_app()
    wanted = strict or {"response_format": {"type": "json_object"}}
    assert chat(app, **wanted).status_code == 200
    format = only(backend).format
    assert (format.kind, format.value) == (
        ("json_schema", {"type": "object"}) if strict else ("json_object", None)
    )


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_of_the_tools_sent_only_the_allowed_ones_are_offered(mode: str) -> None:
    app, backend = scripted_app()
    allowed = {"mode": mode, "tools": [tool("a"), tool("c")]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    tools = [tool(name) for name in "abc"]
    assert chat(app, tools=tools, tool_choice=choice).status_code == 200
    request = only(backend)
    assert ([one.name for one in request.tools], request.tool_choice.mode) == (["a", "c"], mode)
    unknown = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [tool("d")]}}
    refused = chat(app, tools=tools, tool_choice=unknown)
    assert (refused.status_code, param_of(refused)) == (400, "tool_choice")


FUNCTIONS: dict[str, Any] = {"functions": [{"name": "add", "parameters": {"type": "object"}}]}


def test_a_client_of_functions_is_answered_with_a_function_call() -> None:
    app, backend = scripted_app([["Let me.", ToolCall(id="c", name="add", arguments='{"a": 1}')]])
    body = chat(app, **FUNCTIONS, function_call={"name": "add"}).json()
    choice = body["choices"][0]
    assert choice["message"]["function_call"] == {"name": "add", "arguments": '{"a": 1}'}
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("function_call", False)
    text = chat(app, **FUNCTIONS, stream=True).text
    chunks = [json.loads(line[6:])["choices"][0] for line in text.splitlines() if line.startswith("data: {")]
    pieces = [chunk["delta"]["function_call"] for chunk in chunks if "function_call" in chunk["delta"]]
    assert pieces[0]["name"] == "add"
    assert "".join(piece["arguments"] for piece in pieces) == '{"a": 1}'
    assert chunks[-1]["finish_reason"] == "function_call"
    assert [(r.tool_choice.mode, r.tool_choice.parallel) for r in backend.requests] == [
        ("named", False),
        ("auto", False),
    ]


def test_a_result_of_role_function_answers_the_latest_call_of_that_name() -> None:
    app, backend = scripted_app()
    called = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}}
    result = {"role": "function", "name": "add", "content": "3"}
    assert chat(app, **FUNCTIONS, messages=[ASK, called, result]).status_code == 200
    turns = only(backend).messages or ()
    assert [turn.role for turn in turns] == ["user", "assistant", "tool"]
    assert turns[2].tool_call_id == turns[1].tool_calls[0].id
    refused = chat(app, **FUNCTIONS, messages=[ASK, {**result, "name": "other"}])
    assert (refused.status_code, param_of(refused)) == (400, "messages[1].name")
    both = chat(app, **FUNCTIONS, tools=[tool("a")])
    assert (both.status_code, param_of(both)) == (400, "functions")


def test_an_empty_answer_has_empty_log_probabilities_where_they_were_asked_for() -> None:
    app, _ = scripted_app([[ChoiceDone(reason="stop")]])
    assert chat(app, logprobs=True).json()["choices"][0]["logprobs"] == {"content": [], "refusal": None}
    assert chat(app).json()["choices"][0]["logprobs"] is None
    empty = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    assert completion(app, logprobs=1).json()["choices"][0]["logprobs"] == empty


# A last turn of the assistant

BEGUN = {"role": "assistant", "content": "Hel"}


@pytest.mark.parametrize(
    ("fields", "continues"),
    [
        ({}, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, True),
        ({"continue_final_message": False}, False),
        ({"add_generation_prompt": True}, False),
    ],
)
def test_a_chat_goes_on_with_a_last_turn_of_the_assistant_unless_told_otherwise(
    fields: dict[str, Any], continues: bool
) -> None:
    app, backend = scripted_app()
    assert chat(app, messages=[ASK, BEGUN], **fields).status_code == 200
    assert only(backend).continues is continues


def test_a_message_goes_on_with_a_last_turn_of_the_assistant() -> None:
    app, backend = scripted_app()
    assert messages(app, messages=[ASK, BEGUN]).status_code == 200
    called = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
    assert messages(app, messages=[ASK, called]).status_code == 200
    assert messages(app).status_code == 200
    assert [request.continues for request in backend.requests] == [True, False, False]


# Context

LONG = ContextLengthExceeded("too long here", hint="shorten it", prompt_tokens=90, context_tokens=64)
BOTH = ContextLengthExceeded(
    "no room", hint="ask for less", prompt_tokens=50, answer_tokens=40, context_tokens=64
)


@pytest.mark.parametrize(
    ("error", "openai", "anthropic"),
    [
        (
            LONG,
            "This model's maximum context length is 64 tokens. However, your messages resulted in 90 tokens. "
            "Here: too long here; shorten it",
            "prompt is too long: 90 tokens > 64 maximum. Here: too long here; shorten it",
        ),
        (
            BOTH,
            "This model's maximum context length is 64 tokens. However, you requested 90 tokens (50 in the "
            "messages, 40 in the completion). Here: no room; ask for less",
            "input length and `max_tokens` exceed context limit: 50 + 40 > 64. Here: no room; ask for less",
        ),
    ],
    ids=["prompt", "answer"],
)
def test_a_context_error_is_said_in_the_sentence_that_clients_look_for(
    error: Exception, openai: str, anthropic: str
) -> None:
    app, _ = scripted_app([[error]])
    for answer in (chat(app), completion(app), chat(app, stream=True)):
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, openai)
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    for answer in (messages(app), messages(app, stream=True)):
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, anthropic)


def fitted_turn() -> list[Any]:
    told = "max_tokens lowered from 32000 to 6000"
    decision = Decision(
        layer="model", policy="fitted", subject="max_tokens", chosen="6000", notice=told, at_s=0.0
    )
    usage = Usage(prompt_tokens=3, completion_tokens=1, decisions=(decision,))
    return [NoticeDelta(text=told), "x", ChoiceDone(reason="length"), usage]


@pytest.mark.parametrize(
    "ask",
    [
        lambda app: chat(app, max_tokens=32_000),
        completion,
        messages,
        lambda app: call(app, "POST", "/v1/responses", body={"input": "x"}),
    ],
    ids=["chat", "completion", "message", "response"],
)
def test_what_was_done_otherwise_than_asked_is_in_the_header_and_the_usage(ask: Callable[[Any], Any]) -> None:
    app, backend = scripted_app([fitted_turn()])
    answer = ask(app)
    told = "max_tokens lowered from 32000 to 6000"
    assert (answer.json()["usage"]["notices"], answer.headers["x-pentad-notice"]) == ([told], told)
    assert only(backend).sampling.fit_max_tokens


def test_a_message_that_the_context_ends_says_so() -> None:
    app, _ = scripted_app([fitted_turn()])
    assert messages(app).json()["stop_reason"] == "model_context_window_exceeded"
    app, _ = scripted_app([fitted_turn()])
    streamed = messages(app, stream=True)
    assert streamed.headers["x-pentad-notice"].startswith("max_tokens lowered")
    assert '"stop_reason":"model_context_window_exceeded"' in streamed.text


# Anthropic's tools and blocks


@pytest.mark.parametrize(
    ("kind", "name", "needed"),
    [
        ("bash_20250124", "bash", []),
        ("text_editor_20250728", "str_replace_based_edit_tool", ["command", "path"]),
        ("memory_20250818", "memory", ["command"]),
    ],
)
def test_a_tool_that_anthropic_defines_and_the_client_runs_gets_its_schema(
    kind: str, name: str, needed: list[str]
) -> None:
    app, backend = scripted_app()
    assert messages(app, tools=[{"type": kind, "name": name}]).status_code == 200
    (spec,) = only(backend).tools
    assert (spec.name, spec.parameters["required"], bool(spec.description)) == (name, needed, True)


@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250825", "bash_2025", "bash"])
def test_a_tool_that_runs_at_its_vendor_is_refused(kind: str) -> None:
    app, backend = scripted_app()
    refused = messages(app, tools=[{"type": kind, "name": "x"}])
    assert refused.status_code == 400
    assert "known by type: bash, text_editor, memory" in refused.json()["error"]["message"]
    assert backend.requests == []


def test_documents_and_search_results_of_text_are_read() -> None:
    app, backend = scripted_app()
    plain = {"type": "text", "media_type": "text/plain", "data": "All is well."}
    blocks = [
        {"type": "document", "source": plain, "title": "Report", "context": "of today"},
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "text", "text": "In parts."}]},
        },
        {"type": "text", "text": "Sum up."},
    ]
    found = {"type": "search_result", "source": "https://a.example", "title": "A", "content": [blocks[2]]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [found]}
    assert messages(app, messages=[{"role": "user", "content": [result, *blocks]}]).status_code == 200
    tool_turn, user_turn = only(backend).messages or ()
    assert user_turn.content == (
        "<document>\n<title>Report</title>\n<context>of today</context>\nAll is well.\n</document>\n"
        "<document>\nIn parts.\n</document>\nSum up."
    )
    assert tool_turn.content == (
        "<search_result>\n<title>A</title>\n<source>https://a.example</source>\nSum up.\n</search_result>"
    )
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x"}}
    refused = messages(app, messages=[{"role": "user", "content": [pdf]}])
    assert refused.status_code == 400
    assert "source.data is not valid base64" in refused.json()["error"]["message"]


# Completions


def token(text: str, data: bytes | None = None, logprob: float = -1.0) -> TokenLogprob:
    data = text.encode() if data is None else data
    return TokenLogprob(text=text, data=data, logprob=logprob, alternatives=((text, data, logprob),))


def test_parts_of_a_character_share_its_offset() -> None:
    crab = "\N{CRAB}".encode()
    parts = [token("a"), *(token("\ufffd", bytes([byte])) for byte in crab), token("b")]
    turn: list[Any] = [TextDelta(text="a\N{CRAB}b", logprobs=tuple(parts))]
    app, _ = scripted_app([turn])
    plain = completion(app, logprobs=1).json()["choices"][0]["logprobs"]
    assert plain["text_offset"] == [0, 1, 1, 1, 1, 2]
    split = [
        TextDelta(text="a", logprobs=tuple(parts[:2])),
        TextDelta(text="\N{CRAB}b", logprobs=tuple(parts[2:])),
    ]
    app, _ = scripted_app([split])
    lines = completion(app, logprobs=1, stream=True).text.splitlines()
    chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    streamed = [
        offset for chunk in chunks if chunk["logprobs"] for offset in chunk["logprobs"]["text_offset"]
    ]
    assert streamed == plain["text_offset"]


def test_an_echoed_prompt_stands_in_front_with_its_log_probabilities() -> None:
    scored = (token("a ", logprob=0.0), token("b", logprob=-2.0))
    turn: list[Any] = [
        PromptDelta(tokens=scored),
        TextDelta(text=" c", logprobs=(token(" c", logprob=-3.0),)),
    ]
    app, backend = scripted_app([turn])
    choice = completion(app, echo=True, logprobs=1, max_tokens=1).json()["choices"][0]
    assert choice["text"] == "a b c"
    assert choice["logprobs"] == {
        "tokens": ["a ", "b", " c"],
        "token_logprobs": [None, -2.0, -3.0],
        "top_logprobs": [None, {"b": -2.0}, {" c": -3.0}],
        "text_offset": [0, 2, 3],
    }
    lines = completion(app, echo=True, logprobs=1, stream=True).text.splitlines()
    chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
    for name, values in choice["logprobs"].items():
        assert [v for chunk in chunks if chunk["logprobs"] for v in chunk["logprobs"][name]] == values
    assert {request.sampling.prompt_logprobs for request in backend.requests} == {1}
    refused = completion(app, echo=True, logprobs=1, n=2)
    assert (refused.status_code, param_of(refused)) == (400, "n")


def test_an_echo_of_several_prompts_belongs_to_each() -> None:
    app, backend = scripted_app([["!"]])
    body = completion(app, prompt=["one", "two"], echo=True, max_tokens=0).json()
    assert [choice["text"] for choice in body["choices"]] == ["one!", "two!"]
    assert {(r.sampling.max_tokens, r.sampling.prompt_logprobs) for r in backend.requests} == {(0, None)}


# Models


def test_the_model_list_has_the_shape_of_who_asks() -> None:
    app, _ = scripted_app()
    plain = call(app, "GET", "/v1/models").json()
    assert (plain["object"], plain["data"][0]["object"]) == ("list", "model")
    headers = {"anthropic-version": "2023-06-01"}
    page = call(app, "GET", "/v1/models", headers=headers).json()
    assert (page["data"][0]["type"], page["data"][0]["id"]) == ("model", "scripted")
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("scripted", "scripted", False)
    assert call(app, "GET", "/v1/models?after_id=scripted", headers=headers).json()["data"] == []
    assert call(app, "GET", "/v1/models/scripted", headers=headers).json()["display_name"] == "scripted"
    missing = call(app, "GET", "/v1/models/none", headers=headers)
    assert (missing.status_code, missing.json()["type"]) == (404, "error")
    assert missing.headers["request-id"] == missing.headers["x-request-id"]


def test_a_server_is_not_ready_before_it_has_said_where_it_listens() -> None:
    app, _ = scripted_app()
    app.state.gateway.load.starting = True
    answer = call(app, "GET", "/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "starting")
    assert call(app, "POST", "/v1/chat/completions", body=CHAT).status_code == 200
