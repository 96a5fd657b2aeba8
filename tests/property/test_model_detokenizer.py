"""Streams of tokens: every push is valid text, and together they are the text of the whole."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

import model_fixtures as make
from pentad.model.tokenizer import Detokenizer, Tokenizer, from_json

SPICE = st.sampled_from(
    [
        *make.CONTROLS,
        *make.MARKERS,
        "👨\u200d👩\u200d👧",
        "e\u0301",
        "שלום",
        "\u202e",
        "🇩🇪",
        "\ufffd",
        "\x00",
        "hello world",
    ]
)
TEXT = st.lists(st.one_of(st.text(max_size=12), SPICE), max_size=6).map("".join)


@functools.cache
def tokenizer() -> Tokenizer:
    return from_json(make.tokenizer_json(), size=make.VOCAB + 4)


def streamed(ids: list[int], special: bool) -> list[str]:
    detokenizer = Detokenizer(tokenizer(), special=special)
    return [*(detokenizer.push(id) for id in ids), detokenizer.flush()]


@given(ids=st.lists(st.integers(0, make.VOCAB + 3), max_size=40), special=st.booleans())
@settings(max_examples=400, deadline=None)
def test_pushes_of_any_tokens_add_up_to_their_text(ids: list[int], special: bool) -> None:
    parts = streamed(ids, special)
    assert "".join(parts) == tokenizer().decode(ids, special=special)
    for part in parts:
        part.encode("utf-8")  # raises on half a character


@given(text=TEXT)
@settings(max_examples=400, deadline=None)
def test_text_streams_back_unchanged_and_forges_no_control_token(text: str) -> None:
    ids = tokenizer().encode(text, special=False)
    assert not set(ids) & set(tokenizer().special_tokens.values())
    assert "".join(streamed(ids, False)) == text


@given(text=TEXT)
@settings(max_examples=200, deadline=None)
def test_parsed_and_plain_readings_spell_the_same_text(text: str) -> None:
    ids = tokenizer().encode(text, special=True)
    assert tokenizer().decode(ids, special=True) == text


@given(text=TEXT, cut=st.integers(0, 80))
@settings(max_examples=200, deadline=None)
def test_bytes_of_two_halves_are_the_bytes_of_the_whole(text: str, cut: int) -> None:
    ids = tokenizer().encode(text, special=False)
    data = [tokenizer().token_bytes(id) for id in ids]
    assert b"".join(data[:cut]) + b"".join(data[cut:]) == text.encode()
