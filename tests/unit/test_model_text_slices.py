"""Long texts are cut where their tokens do not change."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.model import text_slices
from pentad.model.text_slices import SLICE_CHARS, sliceable, slices

WORDS = [
    *("word", " ", "\n", "  ", "\n\n", " x", "7", "12.5", "don't", "\u4e2d\u6587"),
    *("!", "(a)", "\t", "\u00e9", "\N{WHITE SMILING FACE}", "\r\n", ", "),
]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(WORDS), max_size=2000))
def test_slices_add_up_to_the_text_and_are_short_where_there_are_words(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = list(slices(text))
    assert "".join(pieces) == text
    for piece in pieces[:-1]:
        assert len(piece) >= SLICE_CHARS
        if not re.search(r"\S{200}|\s{200}", text):
            assert len(piece) < SLICE_CHARS + 600


def test_tokenizers_whose_words_depend_on_the_place_are_not_sliced() -> None:
    def anchored(text: str) -> list[int]:
        return [1, *map(ord, text)]

    assert not sliceable(anchored, [])
    assert sliceable(lambda text: [*map(ord, text)], ["<|im_start|>"])
    assert not sliceable(lambda text: [*map(ord, text)], ["two words"])
    assert text_slices._PROBE.count("\n") >= 2
