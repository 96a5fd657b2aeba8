"""A finished response as the events that it would have been streamed in, for who reads it later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pentad.application.gateway.schemas.responses import ResponseObject

Event = tuple[str, dict[str, Any]]


def opening_events(response: ResponseObject) -> Iterator[Event]:
    """The first two events, which tell of a response that has nothing yet."""
    empty = msgspec.structs.replace(
        response, status="in_progress", output=[], usage=None, error=None, incomplete_details=None
    )
    yield "response.created", {"response": empty}
    yield "response.in_progress", {"response": empty}


def remaining_events(response: ResponseObject) -> Iterator[Event]:
    """Each item of the output in one piece, and the end."""
    for index, item in enumerate(response.output):
        yield from _item(item, index)
    name = "failed" if response.status == "cancelled" else response.status
    yield f"response.{name}", {"response": response}


def _item(item: dict[str, Any], index: int) -> Iterator[Event]:
    place = {"item_id": item["id"], "output_index": index}
    called = item["type"] == "function_call"
    begun = {**item, "status": "in_progress", ("arguments" if called else "content"): "" if called else []}
    yield "response.output_item.added", {"output_index": index, "item": begun}
    if called:
        yield "response.function_call_arguments.delta", {**place, "delta": item["arguments"]}
        yield "response.function_call_arguments.done", {**place, "arguments": item["arguments"]}
    else:
        for number, part in enumerate(item["content"]):
            yield from _part(part, {**place, "content_index": number})
    yield "response.output_item.done", {"output_index": index, "item": item}


def _part(part: dict[str, Any], place: dict[str, Any]) -> Iterator[Event]:
    text = {"text": part["text"]}
    more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
    empty = {**part, "text": "", **{key: [] for key in more}}
    yield "response.content_part.added", {**place, "part": empty}
    yield f"response.{part['type']}.delta", {**place, "delta": part["text"], **more}
    yield f"response.{part['type']}.done", {**place, **text, **more}
    yield "response.content_part.done", {**place, "part": part}
