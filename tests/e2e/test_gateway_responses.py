"""The Responses format with the stock OpenAI client, against a live gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from gateway_support import Live, eventually, scripted
from pentad.errors import BackendFailed
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.types import Request, ToolCall, Usage

ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "strict": True,
}
MIXED = [
    TextDelta(text="thin", kind="reasoning"),
    TextDelta(text="king", kind="reasoning"),
    "Let me ",
    "see.",
    ToolCall(id="call_1", name="add", arguments='{"a": 1}'),
    ToolCall(id="call_2", name="add", arguments='{"a": 2}'),
    Usage(prompt_tokens=9, cached_tokens=8, completion_tokens=7, reasoning_tokens=2),
]


def client_of(live: Live, key: str = "unused") -> OpenAI:
    return OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)


def test_a_response_is_answered_stored_and_read_again() -> None:
    with scripted(["Hel", "lo"]) as live, client_of(live) as client:
        made = client.responses.create(model="scripted", input="Hi", instructions="Be brief.")
        again = client.responses.retrieve(made.id)
        assert live.backend is not None
        roles = [m.role for m in live.backend.requests[0].messages or ()]
    assert made.output_text == "Hello"
    assert made.status == "completed"
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert again == made
    assert roles == ["system", "user"]


def test_streamed_events_come_in_order_and_add_up_to_the_plain_answer() -> None:
    with scripted(MIXED, MIXED) as live, client_of(live) as client:
        plain = client.responses.create(model="scripted", input="Hi", tools=[ADD])
        events = list(client.responses.create(model="scripted", input="Hi", tools=[ADD], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 4
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    arguments = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert text == plain.output_text == "Let me see."
    assert "".join(arguments) == '{"a": 1}{"a": 2}'
    final = events[-1].response  # type: ignore[union-attr]
    assert _without_ids(final) == _without_ids(plain)
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == 8


def _without_ids(response: Any) -> Any:
    made = json.loads(response.model_dump_json(exclude={"id", "created_at"}))
    for item in made["output"]:
        del item["id"]
    return made


def test_the_stream_helper_gives_the_final_response() -> None:
    with (
        scripted(["Hel", "lo"]) as live,
        client_of(live) as client,
        client.responses.stream(model="scripted", input="Hi") as stream,
    ):
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert final.output_text == "Hello"


class City(BaseModel):
    name: str


def test_parse_returns_the_typed_object() -> None:
    with scripted(['{"name": "Ghent"}']) as live, client_of(live) as client:
        parsed = client.responses.parse(model="scripted", input="Hi", text_format=City)
        assert live.backend is not None
        assert live.backend.requests[0].format.kind == "json_schema"
    assert parsed.output_parsed == City(name="Ghent")


def test_a_conversation_continues_from_a_stored_response_with_its_tool_results() -> None:
    call = ToolCall(id="call_1", name="add", arguments='{"a": 1}')
    with scripted(["I will ask.", call], ["It is 2."]) as live, client_of(live) as client:
        first = client.responses.create(
            model="scripted", input="Add", instructions="First rules.", tools=[ADD]
        )
        second = client.responses.create(
            model="scripted",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": "call_1", "output": "2"}],
        )
        assert live.backend is not None
        turns = live.backend.requests[1].messages or ()
    assert [turn.role for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1].content == "I will ask."
    assert turns[1].tool_calls[0].id == turns[2].tool_call_id == "call_1"
    assert second.previous_response_id == first.id


def test_an_answer_cut_by_max_output_tokens_is_incomplete() -> None:
    turn = ["some words", ChoiceDone(reason="length")]
    with scripted(turn, turn) as live, client_of(live) as client:
        plain = client.responses.create(model="scripted", input="Hi", max_output_tokens=2)
        events = list(client.responses.create(model="scripted", input="Hi", stream=True))
    assert plain.status == "incomplete"
    assert plain.incomplete_details is not None
    assert plain.incomplete_details.reason == "max_output_tokens"
    assert events[-1].type == "response.incomplete"


def test_a_stream_that_breaks_ends_with_response_failed() -> None:
    with scripted(["a", BackendFailed("it broke")]) as live, client_of(live) as client:
        events = list(client.responses.create(model="scripted", input="Hi", stream=True))
        assert events[-1].type == "response.failed"
        assert events[-1].response.error is not None
        assert "it broke" in events[-1].response.error.message
        assert client.responses.retrieve(events[-1].response.id).status == "failed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_responses_that_are_not_stored_or_deleted_are_not_found() -> None:
    with scripted(["a"], ["b"]) as live, client_of(live) as client:
        hidden = client.responses.create(model="scripted", input="Hi", store=False)
        deleted = client.responses.create(model="scripted", input="Hi")
        client.responses.delete(deleted.id)
        for response_id in (hidden.id, deleted.id, "resp_none"):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(response_id)
            with pytest.raises(openai.BadRequestError) as refused:
                client.responses.create(model="scripted", input="Hi", previous_response_id=response_id)
            assert refused.value.code == "previous_response_not_found"


def test_another_tenant_does_not_find_a_stored_response() -> None:
    with (
        scripted(["a"], api_keys=("ann:one", "bob:two")) as live,
        client_of(live, "one") as ann,
        client_of(live, "two") as bob,
    ):
        made = ann.responses.create(model="scripted", input="Hi")
        assert ann.responses.retrieve(made.id).id == made.id
        with pytest.raises(openai.NotFoundError):
            bob.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError, match="not found"):
            bob.responses.create(model="scripted", input="Hi", previous_response_id=made.id)
        reference: Any = [{"type": "item_reference", "id": made.output[0].id}]
        with pytest.raises(openai.NotFoundError, match="not found"):
            bob.responses.create(model="scripted", input=reference)


def test_a_background_response_is_polled_and_can_be_cancelled() -> None:
    never = asyncio.Event()
    with scripted(["quick"], ["slow", never]) as live, client_of(live) as client:
        quick = client.responses.create(model="scripted", input="Hi", background=True)
        assert quick.status == "in_progress"
        eventually(lambda: client.responses.retrieve(quick.id).status == "completed")
        assert client.responses.retrieve(quick.id).output_text == "quick"
        with pytest.raises(openai.ConflictError, match="completed"):
            client.responses.cancel(quick.id)

        slow = client.responses.create(model="scripted", input="Hi", background=True)
        assert client.responses.cancel(slow.id).status == "cancelled"
        assert client.responses.retrieve(slow.id).status == "cancelled"
        assert live.backend is not None
        assert live.backend.closed_early == 1


def test_hosted_tools_are_left_out_and_reported() -> None:
    with scripted(["a"]) as live, client_of(live) as client:
        raw = client.responses.with_raw_response.create(
            model="scripted", input="Hi", tools=[{"type": "web_search"}, ADD]
        )
        assert live.backend is not None
        assert [tool.name for tool in live.backend.requests[0].tools] == ["add"]
    assert raw.headers["x-pentad-ignored"] == "tools[0].type=web_search"


def test_a_reference_stands_for_the_stored_item_that_it_names() -> None:
    call = ToolCall(id="call_1", name="add", arguments='{"a": 1}')
    with scripted(["I will ask.", call], ["2"], ["3"]) as live, client_of(live) as client:
        first = client.responses.create(model="scripted", input="Add", tools=[ADD])
        items: list[Any] = [{"type": "item_reference", "id": item.id} for item in first.output[:1]]
        items += [{"id": item.id} for item in first.output[1:]]
        answer = {"type": "function_call_output", "call_id": "call_1", "output": "2"}
        client.responses.create(model="scripted", input=[{"role": "user", "content": "Add"}, *items, answer])
        assert live.backend is not None
        turns = live.backend.requests[1].messages or ()
        with pytest.raises(openai.NotFoundError, match="Item with id 'msg_none' not found"):
            client.responses.create(model="scripted", input=[{"type": "item_reference", "id": "msg_none"}])
        client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError, match="send the item itself"):
            client.responses.create(model="scripted", input=items)
    assert [turn.role for turn in turns] == ["user", "assistant", "tool"]
    assert (turns[1].content, turns[1].tool_calls[0].id) == ("I will ask.", "call_1")


@pytest.mark.parametrize("field", [{"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}])
def test_state_that_is_not_kept_here_is_refused_and_told_what_to_send(field: dict[str, Any]) -> None:
    with scripted() as live, client_of(live) as client:
        with pytest.raises(openai.BadRequestError, match="kept here; send"):
            client.responses.create(model="scripted", input="Hi", **field)
        assert live.backend is not None
        assert live.backend.requests == []


def test_a_stored_response_is_read_again_as_the_events_that_it_was() -> None:
    call = ToolCall(id="call_1", name="add", arguments='{"a": 1}')
    turn: list[Any] = [TextDelta(text="hm", kind="reasoning"), "Hel", "lo", call]
    with scripted(turn) as live, client_of(live) as client:
        made = client.responses.create(model="scripted", input="Hi", tools=[ADD])
        events = list(client.responses.retrieve(made.id, stream=True))
        later = list(client.responses.retrieve(made.id, stream=True, starting_after=3))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert later == events[4:]
    assert [events[0].type, events[1].type] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output == made.output
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello"
    assert [e.item.type for e in events if e.type == "response.output_item.done"] == [
        "reasoning",
        "message",
        "function_call",
    ]


def test_a_background_response_is_followed_to_its_end() -> None:
    go_on, loops = asyncio.Event(), []

    def turn(_: Request) -> list[Any]:
        loops.append(asyncio.get_running_loop())
        return ["qui", go_on, "ck"]

    with scripted(turn) as live, client_of(live) as client:
        stream = client.responses.create(model="scripted", input="Hi", background=True, stream=True)
        first = next(stream)
        assert (first.type, first.response.status) == ("response.created", "in_progress")
        eventually(lambda: loops)
        loops[0].call_soon_threadsafe(go_on.set)
        *_, last = stream
    assert last.type == "response.completed"
    assert last.response.output_text == "quick"


def test_the_prompt_of_a_response_is_counted_without_generating() -> None:
    with scripted() as live, client_of(live) as client:
        count = client.responses.input_tokens.count(
            model="scripted", instructions="one two", input="three four five"
        )
        assert live.backend is not None
        assert live.backend.requests == []
    assert count.input_tokens == 5


def test_functions_in_namespaces_are_called_and_name_their_namespace() -> None:
    def search(namespace: str) -> dict[str, Any]:
        function = {"type": "function", "name": "search", "parameters": {"type": "object", "properties": {}}}
        only = {**function, "name": f"only_{namespace}"}
        return {"type": "namespace", "name": namespace, "description": "", "tools": [function, only]}

    calls = [
        ToolCall(id=f"c{i}", name=name, arguments="{}") for i, name in enumerate(("a__search", "only_b"))
    ]
    tools: Any = [search("a"), search("b")]
    with scripted(calls, ["done"]) as live, client_of(live) as client:
        made = client.responses.create(model="scripted", input="Hi", tools=tools)
        items: Any = [item.to_dict() for item in made.output]
        results = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "x"}
            for item in made.output
            if item.type == "function_call"
        ]
        client.responses.create(model="scripted", input=[*items, *results], tools=tools)
        assert live.backend is not None
        requests = live.backend.requests
    assert [tool.name for tool in requests[0].tools] == ["a__search", "only_a", "b__search", "only_b"]
    named = [(item["name"], item["namespace"]) for item in items]
    assert named == [("search", "a"), ("only_b", "b")]
    again = (requests[1].messages or ())[0].tool_calls
    assert [call.name for call in again] == ["a__search", "only_b"]


def test_only_allowed_tools_are_offered() -> None:
    other = {**ADD, "name": "other"}
    choice: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    with scripted(["a"]) as live, client_of(live) as client:
        client.responses.create(model="scripted", input="Hi", tools=[ADD, other], tool_choice=choice)
        assert live.backend is not None
        request = live.backend.requests[0]
    assert ([tool.name for tool in request.tools], request.tool_choice.mode) == (["add"], "required")
