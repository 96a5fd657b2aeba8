"""Calls drawn at random under the grammar of each format: every one parses, and streaming changes nothing."""

from __future__ import annotations

import codecs
import itertools
import json
import pathlib
import random
import re
import time
from typing import Any

import jsonschema
import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

import model_fixtures as make
from chat_support import END, tiny_tokenizer
from evidence.plugin import Measure
from pentad import registry
from pentad.application.bench.facts import append_line, commit, machine
from pentad.execution.backend import ChoiceDone, Completion, StreamDone, TextDelta, ToolCallDelta, fold
from pentad.execution.request import Constraint
from pentad.execution.sampling import allowed_tokens
from pentad.model.constraints import ConstraintCompiler
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.toolcalls import CallParser, ToolFormat, choose_format
from pentad.model.toolcalls.base import Schemas
from pentad.types import OutputFormat, ToolChoice, Usage
from tool_schemas import object_schema, tool, value

FORMATS = registry.known("tool_format")
RESULTS = pathlib.Path(__file__).parent.parent.parent / "benchmarks" / "results" / "tool-calls.jsonl"
CALLS_PER_SCHEMA = 10
MANY = 500
CONTROL = re.compile(r"<[|｜][^<>]*>|<[^<>]*[|｜]>|\[[A-Z_]+\]|<\w+>")


def parse(format: ToolFormat, schemas: Schemas, pieces: list[str]) -> Completion:
    parser = CallParser(format, schemas, "r")
    deltas: list[TextDelta | ToolCallDelta] = []
    for piece in pieces:
        deltas += parser.feed(piece)
    deltas += parser.finish()
    return fold([*deltas, ChoiceDone(reason="stop"), StreamDone(usage=Usage())])


def cut_at_byte(data: bytes, at: int) -> list[str]:
    """The two halves as whole characters, as a detokenizer gives them out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(data[:at]), decoder.decode(data[at:], final=True)]


def write_out(
    constraint: Constraint, tokenizer: Tokenizer, rng: np.random.Generator, special: bool
) -> str | None:
    """What a model that knows nothing writes, any allowed token being equally likely; None without an end."""
    tokens: list[int] = []
    while not constraint.finished():
        allowed = np.nonzero(allowed_tokens(constraint.mask(), tokenizer.vocab_size))[0]
        token = int(rng.choice(allowed))
        constraint.accept(token)
        if token in (0, END):
            break
        tokens.append(token)
        if len(tokens) > 3000:
            return None
    return tokenizer.decode(tokens, special=special)


def knowing(format: ToolFormat) -> Tokenizer:
    """The tiny tokenizer with the format's marks as control tokens, as models have them."""
    backend = tokenizers.Tokenizer.from_str(make.tokenizer_json())
    marks = {mark for text in format.texts() for mark in CONTROL.findall(text)}
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in sorted(marks)])
    return from_json(backend.to_str())


def draw_calls(name: str, count: int, splits: int | None) -> int:
    """Draws calls under the constraint; all parse, fit their schemas and are the same however cut.

    Args:
        count: turns with calls, ten under each set of schemas, half of them with the marks as control tokens.
        splits: places where each is cut in two, drawn among all bytes; None for every byte of every turn.

    Returns how often a turn was cut in two.
    """
    format = choose_format(name, None)[0]
    rng, shapes = np.random.default_rng(7), random.Random(11)
    known = (tiny_tokenizer(), knowing(format))
    compilers = [ConstraintCompiler(one, {0, END}) for one in known]
    cuts = 0
    for i in range(count):
        if i % CALLS_PER_SCHEMA == 0:
            offered = [tool(shapes, 2 * i), tool(shapes, 2 * i + 1)]
            schemas = {one.name: one.parameters for one in offered}
            checks = {one.name: checked(one.parameters) for one in offered}
            started: dict[tuple[int, bool], Constraint] = {}
        kind = (i % 2, i % 3 == 0)
        if kind not in started:
            choice = ToolChoice(mode="required", parallel=kind[1])
            started[kind], _ = compilers[kind[0]].for_calls(format, offered, choice, OutputFormat())
        text = write_out(started[kind].fork(), known[kind[0]], rng, special=kind[0] == 1)
        assert text is not None
        answer = parse(format, schemas, [text])
        assert answer.message.tool_calls
        assert answer.message.content == ""
        for call in answer.message.tool_calls:
            checks[call.name].validate(call.parsed())
        assert parse(format, schemas, list(text)) == answer
        data = text.encode()
        places = range(len(data) + 1) if splits is None else rng.integers(0, len(data) + 1, splits)
        for at in places:
            assert parse(format, schemas, cut_at_byte(data, int(at))) == answer
        cuts += len(places)
    return cuts


def checked(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, format_checker=formats)


@pytest.mark.parametrize("name", FORMATS)
def test_calls_drawn_at_random_under_the_grammar_of_a_format_parse_and_fit_their_schemas(name: str) -> None:
    draw_calls(name, 24, 4)


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORMATS)
def test_calls_of_a_format_are_the_same_split_at_every_byte(name: str) -> None:
    draw_calls(name, 10, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_500_calls_of_a_format_parse_and_are_the_same_split_at_every_byte(
    name: str, measured: Measure
) -> None:
    """One line of the results per format, written as it ends: `-k` takes up where a run has stopped."""
    began_s, least = time.process_time(), MANY * 20
    cuts = draw_calls(name, MANY, None)
    append_line(
        RESULTS,
        {
            "format": name,
            "turns": MANY,
            "cuts": cuts,
            "cuts_at_least": least,
            "cpu_s": round(time.process_time() - began_s, 1),
            "commit": commit(),
            "machine": machine(),
        },
    )
    measured("places where one of 500 turns was cut in two", cuts, at_least=least)


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
    assert parse(format, {"x": {}}, pieces) == parse(format, {"x": {}}, [text])


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
    section = format.opening + format.before + format.start_of("f") + json.dumps(arguments) + "}"
    answer = parse(format, {"f": {}}, [said + section + format.after])
    assert answer.message.content == said.rstrip(" \t\r\n")
    assert answer.message.tool_calls[0].parsed() == arguments
    assert parse(format, {"f": {}}, list(said + section + format.after)) == answer
