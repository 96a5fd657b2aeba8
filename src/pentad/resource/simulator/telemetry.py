"""Traces of OpenTelemetry as a load: the model calls of agent runs, as they were made yesterday.

    span      chat ---- execute_tool ---- chat -----------------------.
                                           chat (at the same time) ---+--- chat
    request    r0  ------ pause_s ------->  r1, r2 --------------------> r3 waits for both

A request waits for the calls of its run that had ended when it began; the time in between, of tools and
people, is its pause. What a call's prompt has in common with earlier ones is told by its messages where they
were exported, else a longer prompt of a run is taken to begin with the one before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from pentad.errors import InvalidRequest
from pentad.resource.simulator.trace import TraceItem
from pentad.types import Hints

_MODEL_CALLS: Final = frozenset({"chat", "text_completion", "generate_content"})
_TOOL_CALL: Final = "execute_tool"
_CHARACTERS_A_TOKEN: Final = 4
_INPUT: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT: Final = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span, as far as it tells of a load."""

    trace: str
    name: str
    begin_s: float
    end_s: float
    attributes: Mapping[str, Any]

    @property
    def operation(self) -> str:
        return str(self.attributes.get("gen_ai.operation.name") or self.name.partition(" ")[0])


def is_telemetry(data: Any) -> bool:
    """Whether it is an export of spans: OTLP in JSON, or a plain list of them under `spans`."""
    return isinstance(data, Mapping) and ("resourceSpans" in data or isinstance(data.get("spans"), list))


def spans_of(data: Mapping[str, Any]) -> Iterator[Span]:
    """The spans of one export.

    Raises KeyError, TypeError, ValueError: it is malformed.
    """
    for span in data.get("spans", ()):
        yield Span(
            trace=str(data.get("trace_id") or span["trace_id"]),
            name=str(span.get("name", "")),
            begin_s=_instant(span["start_time"]),
            end_s=_instant(span["end_time"]),
            attributes=span["attributes"],
        )
    for resource in data.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield Span(
                    trace=str(span["traceId"]),
                    name=str(span.get("name", "")),
                    begin_s=int(span["startTimeUnixNano"]) / 1e9,
                    end_s=int(span["endTimeUnixNano"]) / 1e9,
                    attributes={each["key"]: _value(each["value"]) for each in span.get("attributes", ())},
                )


def telemetry_items(spans: Sequence[Span]) -> list[TraceItem]:
    """The model calls among spans as a load, in order of their start.

    Calls of one conversation, or where none is named of one trace, are a run.

    Raises InvalidRequest for a call of which neither tokens nor messages were exported.
    """
    runs: dict[str, list[Span]] = {}
    tools: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.begin_s, span.end_s)):
        run = str(span.attributes.get("gen_ai.conversation.id") or span.trace)
        if span.operation in _MODEL_CALLS:
            runs.setdefault(run, []).append(span)
        elif span.operation == _TOOL_CALL:
            tools.setdefault(run, []).append(span)
    items = [item for run, calls in runs.items() for item in _run_items(run, calls, tools.get(run, ()))]
    return sorted(items, key=lambda item: item.arrival_s)


def _run_items(run: str, calls: Sequence[Span], tools: Sequence[Span]) -> Iterator[TraceItem]:
    awaited: set[int] = set()
    sizes: list[int] = []
    contents: list[tuple[tuple[int, int], ...]] = []
    waits: list[list[int]] = []
    for number, call in enumerate(calls):
        over = [i for i in range(number) if calls[i].end_s <= call.begin_s]
        # Those that nobody waited for yet, or the latest where all were: branches begin together.
        before = [i for i in over if i not in awaited]
        if over and not before:
            before = waits[-1] or [max(over, key=lambda i: calls[i].end_s)]
            before = [i for i in before if i in over]
        awaited.update(before)
        waits.append(before)
        prompt = _tokens(call, _INPUT, _messages(call))
        parts = _parts(call, prompt)
        if not parts:
            last = max(before, key=lambda i: calls[i].end_s, default=None)
            known = () if last is None or sizes[last] > prompt else contents[last]
            own = prompt - sum(tokens for _, tokens in known)
            parts = (*known, (_name(f"{run}/{number}"), own)) if own else known
        sizes.append(prompt)
        contents.append(parts)
    for number, call in enumerate(calls):
        before = sorted(waits[number], key=lambda i: calls[i].end_s)
        goes_on = any(number in others for others in waits)
        tool = next((span for span in tools if span.begin_s >= call.end_s), None)
        name = None if tool is None or not goes_on else tool.attributes.get("gen_ai.tool.name")
        yield TraceItem(
            id=f"{run}/{number}",
            arrival_s=call.begin_s,
            prompt_tokens=sizes[number],
            output_tokens=_tokens(call, _OUTPUT, [_answer(call)]),
            segments=contents[number],
            after=f"{run}/{before[-1]}" if before else None,
            joins=tuple(f"{run}/{i}" for i in before[:-1]),
            pause_s=call.begin_s - calls[before[-1]].end_s if before else 0.0,
            run=run if len(calls) > 1 else None,
            hints=Hints(next="tool" if goes_on else "end", tool=None if name is None else str(name))
            if len(calls) > 1
            else None,
        )


def _parts(call: Span, prompt: int) -> tuple[tuple[int, int], ...]:
    """Identity and tokens of each message, in proportion to its characters; nothing without messages."""
    messages = _messages(call)
    whole = sum(map(len, messages))
    if not whole:
        return ()
    parts, begin, seen = [], 0, 0
    for message in messages:
        seen += len(message)
        end = round(prompt * seen / whole)
        if end > begin:
            parts.append((_name(message), end - begin))
        begin = end
    return tuple(parts)


def _messages(call: Span) -> list[str]:
    text = call.attributes.get("gen_ai.input.messages")
    if not text:
        return []
    found = json.loads(text) if isinstance(text, str) else text
    return [json.dumps(message, sort_keys=True) for message in found]


def _answer(call: Span) -> str:
    found = call.attributes.get("gen_ai.output.text") or call.attributes.get("gen_ai.output.messages") or ""
    return found if isinstance(found, str) else json.dumps(found)


def _tokens(call: Span, names: Sequence[str], texts: Sequence[str]) -> int:
    """Tokens as they were counted, else by the length of the text; 1 at least."""
    for name in names:
        if (count := call.attributes.get(name)) is not None:
            return max(1, int(count))
    if characters := sum(map(len, texts)):
        return max(1, characters // _CHARACTERS_A_TOKEN)
    raise InvalidRequest(
        f"span {call.name!r} of trace {call.trace!r} has neither {names[0]} nor messages",
        hint="export the usage of model calls",
    )


def _name(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "little")


def _instant(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _value(value: Mapping[str, Any]) -> Any:
    """An attribute's value as OTLP's JSON writes it: integers are text there."""
    (kind, found), *_ = value.items()
    if kind == "intValue":
        return int(found)
    if kind == "arrayValue":
        return [_value(each) for each in found.get("values", ())]
    return found
