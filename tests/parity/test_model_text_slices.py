"""Long texts have the same tokens in slices as in one piece; what is too long is not encoded to its end."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest

from pentad.model.loading import open_model
from pentad.model.text_slices import SLICE_CHARS, slices
from pentad.model.tokenizer import Tokenizer

WORDS = [
    *("word", " ", "\n", "  ", "\n\n", " x", "7", "12.5", "don't", "\u4e2d\u6587"),
    *("!", "(a)", "\t", "\u00e9", "\N{WHITE SMILING FACE}", "\r\n", ", "),
]


@pytest.fixture(scope="module")
def smollm2(smollm2_path: pathlib.Path) -> Tokenizer:
    return open_model(smollm2_path).tokenizer


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.backend.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("path", ["smollm2_path", "qwen_path"])
def test_a_byte_level_tokenizer_encodes_slices_as_the_whole(
    request: pytest.FixtureRequest, path: str
) -> None:
    tokenizer = open_model(request.getfixturevalue(path)).tokenizer
    assert tokenizer._sliceable
    for seed in range(10):
        text = "".join(random.Random(seed).choices(WORDS, k=2500))
        assert len(list(slices(text))) > 2
        assert tokenizer.encode(text, special=True) == whole(tokenizer, text)


def test_a_text_without_any_boundary_is_cut_and_loses_nothing(smollm2: Tokenizer) -> None:
    text = "a" * 50_000
    assert len(list(slices(text))) > 1
    assert smollm2.decode(smollm2.encode(text, special=False)) == text


def test_tokenizing_stops_soon_behind_the_limit(smollm2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def counted(text: str) -> Iterator[str]:
        for piece in slices(text):
            taken.append(piece)
            yield piece

    monkeypatch.setattr("pentad.model.tokenizer.slices", counted)
    ids = smollm2.encode("one two " * 100_000, special=False, limit=500)
    assert 500 < len(ids) < 500 + SLICE_CHARS
    assert sum(map(len, taken)) < 5 * SLICE_CHARS


def test_no_token_stands_for_more_characters_than_said(smollm2: Tokenizer) -> None:
    longest = max(len(smollm2.token_bytes(id).decode("utf-8", "ignore")) for id in range(smollm2.vocab_size))
    assert longest <= smollm2.max_token_chars < 200
