"""Runs as spans: the names of the conventions, who is below whom, forks, crashes, and the simulator."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace

import pytest

from agent_support import harness, run, spec
from cli_support import Pentad
from pentad.agent.events import Record, RunEnded, RunResumed
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAnswered, ModelAsked
from pentad.agent.run_places import Tracing, model_call, tool_call
from pentad.agent.run_spans import RunSpans, run_spans
from pentad.agent.tool_events import ToolReturned
from pentad.application.config import JOURNAL_FILE
from pentad.application.telemetry.run_export import otlp_lines
from pentad.resource.simulator import read_trace
from pentad.tracing import spans as names
from pentad.tracing.context import CURRENT, TraceContext, outgoing
from trace_support import SCRIPT, TOOLS, leading, named

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def recorded(path: pathlib.Path, name: str = "journal.db") -> tuple[list[Record], list[Record]]:
    """The records of a lead and of its sub-run."""

    async def scenario() -> tuple[list[Record], list[Record]]:
        async with harness(path, [SCRIPT] * 4, TOOLS, journal=name) as h:
            state = await h.work(leading(), "find the secret")
            assert state.answer == "the whole"
            (child,) = state.children.values()
            return h.records(state.run_id), h.records(child.run_id)

    return run(scenario())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], list[Record]]:
    return recorded(tmp_path_factory.mktemp("journal"))


def test_model_calls_tools_and_sub_agents_are_below_their_runs(tree: tuple[list[Record], ...]) -> None:
    lead, child = tree
    spans = run_spans(lead, Tracing())
    own = named(spans, "invoke_agent lead")
    ids = {span.place.span_id for span in spans}
    assert len(ids) == len(spans) == 6
    assert {span.place.trace_id for span in spans} == {own.place.trace_id}
    assert own.parent_id is None
    assert all(span.parent_id == own.place.span_id for span in spans if span is not own)
    below = run_spans(child, Tracing())
    invoked = named(below, "invoke_agent ann")
    assert invoked.parent_id == named(spans, "execute_tool delegate").place.span_id
    assert invoked.place.trace_id == own.place.trace_id
    assert all(own.begin_s <= span.begin_s <= span.end_s <= own.end_s for span in (*spans, *below))
    searched = named(spans, "execute_tool search")
    assert searched.attributes[names.TOOL_CALL_ID] == "c1"
    assert searched.attributes[names.OPERATION] == "execute_tool"
    first = spans[0]
    assert (first.name, first.kind) == ("chat scripted", "client")
    told = {key: value for key, value in first.attributes.items() if key in names.__dict__.values()}
    assert told[names.INPUT_TOKENS] == 40
    assert told[names.OUTPUT_TOKENS] == 6
    assert told[names.CACHED_TOKENS] == 16
    assert told[names.RESPONSE_MODEL] == "scripted"
    assert told[names.FINISH_REASONS] == ("tool_calls",)
    assert own.attributes[names.INPUT_TOKENS] == sum(
        r.event.usage.prompt_tokens for r in lead if isinstance(r.event, ModelAnswered)
    )
    chosen = [
        e.attributes["pentad.chosen"] for e in first.events if e.attributes["pentad.subject"] == "model"
    ]
    assert chosen == ["scripted"]
    assert {names.CONVERSATION: lead[0].run_id}.items() <= invoked.attributes.items()


def test_content_is_told_only_where_it_is_asked_for_and_never_of_labelled_runs(
    tree: tuple[list[Record], ...],
) -> None:
    lead, _ = tree
    started = replace(lead[0], event=replace(lead[0].event, data_label="local"))  # type: ignore[call-overload]
    for spans in (run_spans(lead, Tracing()), run_spans([started, *lead[1:]], Tracing(content=True))):
        assert "secret" not in repr(spans)
        assert "the whole" not in repr(spans)
    spans = run_spans(lead, Tracing(content=True))
    searched = named(spans, "execute_tool search").attributes
    assert (searched[names.TOOL_ARGUMENTS], searched[names.TOOL_RESULT]) == (
        '{"text": "a secret"}',
        "found a secret",
    )
    assert json.loads(str(spans[-1].attributes[names.INPUT_MESSAGES])) == [
        {"role": "user", "parts": [{"type": "text", "content": "find the secret"}]}
    ]


def test_a_run_stands_in_its_callers_trace_and_not_recorded_ones_have_no_spans(
    tree: tuple[list[Record], ...],
) -> None:
    lead, child = tree
    called = [
        [replace(each[0], event=replace(each[0].event, traceparent=CALLER)), *each[1:]]  # type: ignore[call-overload]
        for each in (lead, child)
    ]
    above, below = (run_spans(each, Tracing(fraction=0.0)) for each in called)
    assert named(above, "invoke_agent lead").parent_id == "b7ad6b7169203331"
    assert named(below, "invoke_agent ann").parent_id == named(above, "execute_tool delegate").place.span_id
    assert {span.place.trace_id for span in (*above, *below)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert run_spans(lead[:-1], Tracing(fraction=0.0))[:-1] == []
    followed = RunSpans(Tracing(fraction=0.0), lead[0])
    assert [followed.apply(record) for record in lead[1:]] == [[]] * (len(lead) - 1)
    kept = sum(Tracing(fraction=0.25).place(f"run_{i}").sampled for i in range(2000))
    assert 400 < kept < 600


def test_what_a_crash_cut_is_told_and_the_trace_goes_on(tree: tuple[list[Record], ...]) -> None:
    """The process ends with a model call and a tool under way; the next one makes the tool's call again."""
    lead, _ = tree
    searched = next(i for i, r in enumerate(lead) if isinstance(r.event, ToolReturned))
    begun = next(i for i, r in enumerate(lead) if isinstance(r.event, ModelAsked) and i > searched)
    at = lead[begun]
    resumed = Record(
        run_id=at.run_id, sequence=at.sequence + 1, at_s=at.at_s + 60.0, clock_s=1.0, event=RunResumed()
    )
    late = replace(lead[searched], at_s=at.at_s + 61.0)
    gone = [*lead[:searched], *lead[searched + 1 : begun + 1], resumed, late]
    spans = run_spans(gone, Tracing())
    lost = next(span for span in spans if span.attributes.get(names.ERROR_TYPE) == "process_ended")
    asked = at.event
    assert isinstance(asked, ModelAsked)
    assert lost.place.span_id == model_call(at.run_id, asked.step, asked.attempt)
    assert lost.end_s == at.at_s
    tool = named(spans, "execute_tool search")
    assert tool.place.span_id == tool_call(at.run_id, 1, 0)
    assert tool.end_s - tool.begin_s > 60.0
    own = named(spans, "invoke_agent lead")
    assert own.attributes["pentad.run.status"] == "unfinished"
    assert "pentad.run.resumed" in {event.name for event in own.events}
    assert {span.place.trace_id for span in spans} == {
        named(run_spans(lead, Tracing()), own.name).place.trace_id
    }


def test_a_fork_has_a_trace_of_its_own_with_a_link_and_no_span_of_copied_steps(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> tuple[list[Record], list[Record]]:
        async with harness(tmp_path, [SCRIPT] * 4 + [["other"]], TOOLS) as h:
            first = await h.work(leading(), "find the secret")
            forked = await h.runtime.fork(first.run_id, 3)
            await h.runtime.wait(forked)
            return h.records(first.run_id), h.records(forked)

    old, new = (run_spans(records, Tracing()) for records in run(scenario()))
    assert [span.name for span in new] == ["chat scripted", "invoke_agent lead"]
    assert new[-1].links == (old[-1].place,)
    assert new[-1].place.trace_id != old[-1].place.trace_id
    assert new[-1].begin_s >= old[-1].end_s


def test_a_failed_run_and_its_failed_call_say_so(tmp_path: pathlib.Path) -> None:
    from pentad.errors import InvalidRequest

    async def scenario() -> list[Record]:
        async with harness(tmp_path, [[InvalidRequest("the prompt is odd")]]) as h:
            return h.records((await h.work(spec())).run_id)

    records = run(scenario())
    assert isinstance(records[-1].event, RunEnded)
    asked, own = run_spans(records, Tracing())
    assert (asked.error, asked.attributes[names.ERROR_TYPE]) == ("the prompt is odd", "model_failed")
    assert own.attributes[names.ERROR_TYPE] == own.attributes["pentad.run.status"] == "failed"


def test_a_run_that_is_exported_is_replayed_with_its_sub_run_its_tool_and_its_tokens(
    pentad_: Pentad, tmp_path: pathlib.Path
) -> None:
    """Yesterday again: run, export, simulate."""
    (tmp_path / "home").mkdir()
    lead, child = recorded(tmp_path / "home", JOURNAL_FILE)
    assert pentad_("runs", "export", "--format", "otlp", "--output", "y.jsonl").status == 0
    items = read_trace(tmp_path / "y.jsonl")
    answers = [r.event for r in (*lead, *child) if isinstance(r.event, ModelAnswered)]
    assert sorted((i.prompt_tokens, i.output_tokens) for i in items) == sorted(
        (a.usage.prompt_tokens, a.usage.completion_tokens) for a in answers
    )
    first, second, below, last = items
    assert {item.run for item in items} == {lead[0].run_id}
    assert (second.after, below.after, last.after) == (first.id, second.id, below.id)
    assert first.hints is not None
    assert (first.hints.next, first.hints.tool) == ("tool", "search")
    ran = pentad_("simulate", "y.jsonl", "--model", "gpt3-125m", "--device", "rtx-4090", "--json")
    assert (ran.status, json.loads(ran.out)["completed"]) == (0, 4), ran.err


def test_what_cannot_be_exported_is_refused_with_the_remedy(pentad_: Pentad, tmp_path: pathlib.Path) -> None:
    (tmp_path / "home").mkdir()
    Journal(tmp_path / "home" / JOURNAL_FILE).close()
    assert "set --format otlp, or take it out" in pentad_("runs", "export", "--format", "zipkin").err
    assert "--content is of --format otlp" in pentad_("runs", "export", "--content").err
    assert pentad_("runs", "export", "run_x", "--format", "otlp").status != 0


def test_a_traceparent_is_read_as_the_standard_has_it() -> None:
    read = TraceContext.parse(CALLER)
    assert read is not None
    assert read.header() == CALLER
    assert read.sampled
    unsampled = TraceContext.parse(CALLER[:-2] + "00")
    assert unsampled is not None
    assert not unsampled.sampled
    later = TraceContext.parse("cc-" + CALLER[3:] + "-what-will-be")
    assert later is not None
    broken = (
        None,
        "",
        "00",
        CALLER + "-more",
        "ff" + CALLER[2:],
        CALLER.upper(),
        CALLER.replace("b7ad", "xyz0"),
    )
    assert [TraceContext.parse(text) for text in broken] == [None] * len(broken)
    assert TraceContext.parse(f"00-{'0' * 32}-b7ad6b7169203331-01") is None
    assert outgoing() == {}
    token = CURRENT.set(read)
    assert outgoing() == {"traceparent": CALLER}
    CURRENT.reset(token)


def test_the_names_are_those_of_the_conventions() -> None:
    attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for value in vars(attributes).values() if isinstance(value, str)}
    ours = {
        v for k, v in vars(names).items() if k.isupper() and isinstance(v, str) and v.startswith("gen_ai.")
    }
    assert len(ours) > 20
    assert ours <= known
    operations = {each.value for each in attributes.GenAiOperationNameValues}
    assert {"chat", "text_completion", "invoke_agent", "execute_tool", "embeddings"} <= operations


def test_all_spans_of_an_export_are_one_tree(tmp_path: pathlib.Path) -> None:
    recorded(tmp_path)
    journal = Journal(tmp_path / "journal.db")
    (line,) = otlp_lines(journal, None, print)
    journal.close()
    (scope,) = line["resourceSpans"][0]["scopeSpans"]
    parents = {span["spanId"]: span.get("parentSpanId") for span in scope["spans"]}
    assert sorted(parent is None for parent in parents.values())[-2:] == [False, True]
    assert {parent for parent in parents.values() if parent} <= parents.keys()
