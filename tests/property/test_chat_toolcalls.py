"""Five hundred calls over fifty schemas: every one parses, and streaming changes nothing."""

from __future__ import annotations

import codecs
import itertools
import json
import random

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_support import END, tiny_tokenizer
from pentad.execution.backend import ChoiceDone, Completion, StreamDone, TextDelta, ToolCallDelta, fold
from pentad.execution.sampling import allowed_tokens
from pentad.model.constraints import ConstraintCompiler
from pentad.model.toolcalls import CallParser, ToolFormat, choose_format
from pentad.types import OutputFormat, ToolChoice, Usage
from tool_schemas import object_schema, tool, value, written

FORMATS = ("hermes", "mistral", "llama3_json")
SCHEMAS, CALLS = 50, 500


def parse(format: ToolFormat, names: frozenset[str], pieces: list[str]) -> Completion:
    parser = CallParser(format, names, "r")
    deltas: list[TextDelta | ToolCallDelta] = []
    for piece in pieces:
        deltas += parser.feed(piece)
    deltas += parser.finish()
    return fold([*deltas, ChoiceDone(reason="stop"), StreamDone(usage=Usage())])


def cut_at_byte(data: bytes, at: int) -> list[str]:
    """The two halves as whole characters, as a detokenizer gives them out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(data[:at]), decoder.decode(data[at:], final=True)]


@pytest.mark.thorough
def test_500_calls_over_50_schemas_parse_the_same_split_at_every_byte() -> None:
    rng = random.Random(20261122)
    tools = [tool(rng, i) for i in range(SCHEMAS)]
    names = frozenset(t.name for t in tools)
    for i in range(CALLS):
        chosen = tools[i % SCHEMAS]
        arguments = value(rng, dict(chosen.parameters))
        jsonschema.validate(arguments, chosen.parameters)
        format = choose_format(FORMATS[i % 3], None)[0]
        raw = written(rng, arguments)
        section = format.opening + format.before + format.object_start(chosen.name) + raw + "}" + format.after
        text = rng.choice(["", "Let me see. "]) + section if format.opening else section
        whole = parse(format, names, [text])
        (call,) = whole.message.tool_calls
        assert (call.name, call.arguments, call.parsed()) == (chosen.name, raw, arguments)
        data = text.encode()
        for at in range(len(data) + 1):
            assert parse(format, names, cut_at_byte(data, at)) == whole
        assert parse(format, names, list(text)) == whole


@pytest.mark.thorough
def test_500_calls_drawn_at_random_under_the_constraint_parse_and_fit_their_schemas() -> None:
    """A model that knows nothing: any allowed token, all equally likely."""
    rng = np.random.default_rng(7)
    shapes = random.Random(11)
    tokenizer = tiny_tokenizer()
    compiler = ConstraintCompiler(tokenizer, {0, END})
    for i in range(SCHEMAS):
        offered = [tool(shapes, 2 * i), tool(shapes, 2 * i + 1)]
        format = choose_format(FORMATS[i % 3], None)[0]
        for _ in range(CALLS // SCHEMAS):
            choice = ToolChoice(mode="required", parallel=False)
            constraint, _ = compiler.for_calls(format, offered, choice, OutputFormat())
            tokens: list[int] = []
            while not constraint.finished():
                allowed = np.nonzero(allowed_tokens(constraint.mask(), tokenizer.vocab_size))[0]
                token = int(rng.choice(allowed))
                constraint.accept(token)
                if token in (0, END):
                    break
                tokens.append(token)
                assert len(tokens) < 3000
            text = tokenizer.decode(tokens)
            answer = parse(format, frozenset(t.name for t in offered), [text])
            (call,) = answer.message.tool_calls
            assert answer.message.content == ""
            schema = next(t.parameters for t in offered if t.name == call.name)
            jsonschema.validate(call.parsed(), schema)
            assert parse(format, frozenset(t.name for t in offered), list(text)) == answer


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet='<tool_cal>/{}":,name arguments[]TOOL_CALLS;x`js\\\n\u00a0\x1f', max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    name=st.sampled_from(FORMATS),
)
def test_any_text_parses_the_same_however_it_is_cut(text: str, cuts: list[int], name: str) -> None:
    format = choose_format(name, None)[0]
    marks = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(marks)]
    assert parse(format, frozenset({"x"}), pieces) == parse(format, frozenset({"x"}), [text])


@settings(max_examples=200, deadline=None)
@example(seed=0, noise="{", name="hermes")
@example(seed=0, noise='{"a', name="mistral")
@given(
    seed=st.integers(0, 10_000),
    noise=st.text(max_size=30),
    name=st.sampled_from(("hermes", "mistral")),
)
def test_text_around_a_call_stays_text(seed: int, noise: str, name: str) -> None:
    rng = random.Random(seed)
    format = choose_format(name, None)[0]
    shape = object_schema(rng)
    arguments = value(rng, shape)
    said = noise.replace("<", "").replace("[", "")
    section = format.opening + format.before + format.object_start("f") + json.dumps(arguments) + "}"
    answer = parse(format, frozenset({"f"}), [said + section + format.after])
    assert answer.message.content == said.rstrip(" \t\r\n")
    assert answer.message.tool_calls[0].parsed() == arguments
    assert parse(format, frozenset({"f"}), list(said + section + format.after)) == answer
