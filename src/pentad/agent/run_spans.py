"""RunSpans: a run's events as spans of a trace, the same while it goes on and long after.

    invoke_agent lead
      chat model                      ModelAsked ... ModelAnswered or ModelFailed
      execute_tool search             ToolIntended ... ToolReturned
      execute_tool delegate
        invoke_agent member           the sub-run that answers this call

A run in a fork's copied steps made nothing: its spans begin where it goes its own way, with a link to the run
that it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pentad.agent.events import Planned, Record, RunEnded, RunResumed, RunStarted, StepEnded
from pentad.agent.model_events import Compacted, ModelAnswered, ModelAsked, ModelFailed
from pentad.agent.run_places import Tracing, model_call, root_of, tool_call
from pentad.agent.sub_run_events import Coordinated, SubRunStarted
from pentad.agent.tool_events import (
    ApprovalAnswered,
    ApprovalAsked,
    ToolIntended,
    ToolReturned,
    ToolsOffered,
)
from pentad.tracing import spans as names
from pentad.tracing.context import TraceContext
from pentad.tracing.spans import Attribute, Attributes, SpanEvent, TraceSpan
from pentad.tracing.usage import decision_events, message, usage_attributes

_MOST_EVENTS = 128
"""Of one span, as OpenTelemetry's SDKs keep them."""
_DECIDING = Planned | StepEnded | Coordinated | SubRunStarted | ToolsOffered


class RunSpans:
    """Follows one run, from its first record on.

    Args:
        tracing: what is recorded.
        started: the run's first record.
    """

    def __init__(self, tracing: Tracing, started: Record) -> None:
        event = started.event
        assert isinstance(event, RunStarted), "a run begins so"
        self.run_id = started.run_id
        self.place = tracing.place(self.run_id, event.traceparent)
        self.sequence = started.sequence
        self._started = event
        self._content = tracing.content and event.data_label is None
        self._agent = str(event.agent.get("name", ""))
        self._begin_s = self._last_s = started.at_s
        self._copied = event.forked_from is not None
        self._asked: dict[tuple[int, int], tuple[ModelAsked, Record]] = {}
        self._intended: dict[tuple[int, int], tuple[ToolIntended, float]] = {}
        self._happened: list[SpanEvent] = []
        self._tokens = [0, 0, 0]
        self._joules = 0.0
        self._origin = self._linked(tracing)

    def apply(self, record: Record) -> list[TraceSpan]:
        """The spans that end with the record, none where the trace is not recorded."""
        self.sequence = record.sequence
        ended = list(self._ended(record)) if self.place.sampled else []
        self._last_s = record.at_s
        return ended

    def open_span(self) -> TraceSpan:
        """The run's own span as far as it has come."""
        return self._own(self._last_s, {"pentad.run.status": "unfinished"}, None)

    def _linked(self, tracing: Tracing) -> tuple[TraceContext, ...]:
        origin = self._started.forked_from
        return () if origin is None else (tracing.place(origin.run_id, origin.traceparent),)

    def _ended(self, record: Record) -> Iterator[TraceSpan]:
        event = record.event
        if self._copied:
            if isinstance(event, RunResumed):
                self._copied, self._begin_s = False, record.at_s
            return
        match event:
            case ModelAsked():
                self._asked[event.step, event.attempt] = (event, record)
            case ModelAnswered():
                yield self._answered(event, record)
            case ModelFailed():
                yield self._failed(event, record.at_s)
            case ToolIntended():
                # Of a call that is made again after a crash the first intent counts.
                self._intended.setdefault((event.step, event.index), (event, record.at_s))
            case ToolReturned():
                yield self._returned(event, record.at_s)
            case RunResumed():
                for asked, _ in list(self._asked.values()):
                    yield self._lost(asked)
                self._note("pentad.run.resumed", record.at_s, {"pentad.calls_in_doubt": event.in_doubt})
            case ApprovalAsked():
                self._note("pentad.approval.asked", record.at_s, {names.TOOL_NAME: event.tool})
            case ApprovalAnswered():
                self._note("pentad.approval.answered", record.at_s, {"pentad.approved": event.approved})
            case Compacted():
                told = {
                    "pentad.tokens_before": event.before_tokens,
                    "pentad.tokens_after": event.after_tokens,
                }
                self._note("pentad.prompt.compacted", record.at_s, told)
            case RunEnded():
                yield self._run_ended(event, record.at_s)
        if isinstance(event, _DECIDING):
            self._keep(decision_events(event.decisions, at_s=record.at_s, clock_s=record.clock_s))

    def _note(self, name: str, at_s: float, attributes: Attributes) -> None:
        self._keep((SpanEvent(name=name, at_s=at_s, attributes=attributes),))

    def _keep(self, events: Iterable[SpanEvent]) -> None:
        """The first events of the run's own span; a run without end must not fill the memory."""
        room = _MOST_EVENTS - len(self._happened)
        self._happened += list(events)[:room]

    def _child(self, span_id: str, name: str, begin_s: float, end_s: float) -> TraceSpan:
        return TraceSpan(
            place=self.place.at(span_id),
            parent_id=self.place.span_id,
            name=name,
            kind="internal",
            begin_s=begin_s,
            end_s=max(begin_s, end_s),
            attributes={},
        )

    def _call(self, asked: ModelAsked, begin_s: float, end_s: float, model: str) -> TraceSpan:
        wanted = str(self._started.agent.get("model") or self._started.default_model) or model
        room = (asked.reserved_tokens - asked.prompt_tokens) // max(1, asked.samples)
        attributes: dict[str, Attribute] = {
            names.OPERATION: "chat",
            names.PROVIDER: names.SCOPE,
            names.CONVERSATION: root_of(self.run_id),
            names.AGENT_NAME: self._agent,
            names.REQUEST_MODEL: wanted,
            names.REQUEST_MAX_TOKENS: room,
            names.RESPONSE_ID: asked.request_id,
            "pentad.run.id": self.run_id,
            "pentad.step": asked.step,
            "pentad.purpose": asked.purpose,
        }
        if asked.samples > 1:
            attributes[names.REQUEST_CHOICES] = asked.samples
        span_id = model_call(self.run_id, asked.step, asked.attempt)
        span = self._child(span_id, f"chat {model or wanted}", begin_s, end_s)
        return replace(span, kind="client", attributes=attributes)

    def _answered(self, event: ModelAnswered, record: Record) -> TraceSpan:
        asked, at = self._asked.pop((event.step, event.attempt), (_unasked(self.run_id, event), record))
        usage = event.usage
        self._tokens[0] += usage.prompt_tokens
        self._tokens[1] += usage.completion_tokens
        self._tokens[2] += usage.cached_tokens
        self._joules += 0.0 if usage.energy is None else usage.energy.joules
        model = next((d.chosen for d in usage.decisions if d.subject == "model"), "")
        span = self._call(asked, at.at_s, record.at_s, model)
        told = {
            **span.attributes,
            **usage_attributes(usage, began_s=at.clock_s, ended_s=record.clock_s),
            names.FINISH_REASONS: tuple(each.reason for each in event.candidates) or (event.reason,),
        }
        if model:
            told[names.RESPONSE_MODEL] = model
        if self._content:
            texts = [each.text for each in event.candidates] or [event.text]
            told[names.OUTPUT_MESSAGES] = json.dumps([message("assistant", text) for text in texts])
        decided = decision_events(usage.decisions, at_s=record.at_s, clock_s=record.clock_s)
        return replace(span, attributes=told, events=tuple(decided)[:_MOST_EVENTS])

    def _failed(self, event: ModelFailed, at_s: float) -> TraceSpan:
        unasked = _unasked(self.run_id, event)
        asked, at = self._asked.pop((event.step, event.attempt), (unasked, None))
        span = self._call(asked, at_s if at is None else at.at_s, at_s, "")
        told = {**span.attributes, names.ERROR_TYPE: "model_failed", "pentad.retried": event.retry}
        return replace(span, attributes=told, error=event.error)

    def _lost(self, asked: ModelAsked) -> TraceSpan:
        """A model call whose answer the process took with it."""
        _, at = self._asked.pop((asked.step, asked.attempt))
        span = self._call(asked, at.at_s, self._last_s, "")
        told = {**span.attributes, names.ERROR_TYPE: "process_ended"}
        return replace(span, attributes=told, error="the process ended before the answer")

    def _returned(self, event: ToolReturned, at_s: float) -> TraceSpan:
        intent, begin_s = self._intended.pop((event.step, event.index), (None, at_s))
        span_id = tool_call(self.run_id, event.step, event.index)
        told: dict[str, Attribute] = {
            names.OPERATION: "execute_tool",
            names.CONVERSATION: root_of(self.run_id),
            names.TOOL_NAME: event.tool,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL_ID: event.call_id,
            "pentad.run.id": self.run_id,
            "pentad.step": event.step,
            "pentad.tool.status": event.status,
        }
        if event.source:
            told["pentad.tool.source"] = event.source
        if event.cost:
            told["pentad.cost"] = event.cost
        if event.status != "ok":
            told[names.ERROR_TYPE] = event.status
        if self._content:
            told[names.TOOL_ARGUMENTS] = "" if intent is None else intent.arguments
            told[names.TOOL_RESULT] = event.content
        span = self._child(span_id, f"execute_tool {event.tool}", begin_s, at_s)
        error = None if event.status == "ok" else f"the call is {event.status}"
        decided = decision_events(event.decisions, at_s=at_s, clock_s=0.0, timed=False)
        return replace(span, attributes=told, error=error, events=tuple(decided))

    def _run_ended(self, event: RunEnded, at_s: float) -> TraceSpan:
        told: dict[str, Attribute] = {"pentad.run.status": event.status}
        if self._content:
            told[names.INPUT_MESSAGES] = json.dumps([message("user", self._started.goal)])
            told[names.OUTPUT_MESSAGES] = json.dumps([message("assistant", event.answer)])
        if event.status in ("answered", "refused"):
            return self._own(at_s, told, None)
        told[names.ERROR_TYPE] = event.status
        return self._own(at_s, told, event.error or event.status)

    def _own(self, end_s: float, told: dict[str, Attribute], error: str | None) -> TraceSpan:
        caller = TraceContext.parse(self._started.traceparent)
        parent = self._started.parent
        parent_id = None if caller is None else caller.span_id
        if parent is not None:
            parent_id = tool_call(parent.run_id, parent.step, parent.index)
        attributes: dict[str, Attribute] = {
            names.OPERATION: "invoke_agent",
            names.PROVIDER: names.SCOPE,
            names.CONVERSATION: root_of(self.run_id),
            names.AGENT_NAME: self._agent,
            "pentad.run.id": self.run_id,
            names.INPUT_TOKENS: self._tokens[0],
            names.OUTPUT_TOKENS: self._tokens[1],
            names.CACHED_TOKENS: self._tokens[2],
        }
        if self._joules:
            attributes["pentad.energy.joules"] = self._joules
        return TraceSpan(
            place=self.place,
            parent_id=parent_id,
            name=f"invoke_agent {self._agent}".strip(),
            kind="internal",
            begin_s=self._begin_s,
            end_s=max(self._begin_s, end_s),
            attributes=attributes | told,
            events=tuple(self._happened),
            links=self._origin,
            error=error,
        )


def run_spans(records: Sequence[Record], tracing: Tracing) -> list[TraceSpan]:
    """The spans of a run from its records, at least one, in order of their ends; its own is the last."""
    following = RunSpans(tracing, records[0])
    ended = [span for record in records[1:] for span in following.apply(record)]
    if not isinstance(records[-1].event, RunEnded):
        ended.append(following.open_span())
    return ended


def _unasked(run_id: str, event: ModelAnswered | ModelFailed) -> ModelAsked:
    """Stands for the question of an answer whose question was not seen."""
    return ModelAsked(
        step=event.step,
        attempt=event.attempt,
        purpose="act",
        request_id=f"{run_id}.{event.step}.{event.attempt}",
        prompt_tokens=0,
        reserved_tokens=0,
    )
