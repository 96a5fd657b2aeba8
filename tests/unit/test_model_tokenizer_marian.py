"""Marian's own files: pieces of the source, ids of the list for both languages, against the reference's."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from conftest import model_file
from marian_files import MARIAN_TEXTS, RECORD, write_real, write_tiny
from pentad.errors import BadModelFile
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_files import tokenizer_of

EXPECTED: dict[str, list[list[int]]] = json.loads(RECORD.read_text("utf-8"))

LOST = re.compile("[½ℂ][\u0301\u05a9\u1712\u200d]")
"""Marks that the library `tokenizers` loses: those behind a character that the model's table rewrites."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_tiny(tmp_path)
    return tmp_path


def opened(folder: pathlib.Path, **more: Any) -> Tokenizer:
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | more
    return tokenizer_of(folder, family="marian", settings=settings)


def differing(made: Tokenizer, expected: list[list[int]]) -> list[str]:
    """Texts that are cut otherwise. The library tells its own mark in a text from a space, as elsewhere; and
    no control token is read out of a text here."""
    pairs = zip(MARIAN_TEXTS, expected, strict=True)
    compared = [(text, ids) for text, ids in pairs if text == text.strip("▁") and "</s>" not in text]
    assert len(compared) > 150
    return [text for text, ids in compared if made.encode(text, special=False) != ids]


def test_ids_are_those_of_the_reference_for_every_text(folder: pathlib.Path) -> None:
    made = opened(folder)
    assert differing(made, EXPECTED["tiny"]) == []
    assert (made.prefix, made.suffix, made.unknown) == ((), (0,), 1)
    unknown = sum(ids.count(1) for ids in EXPECTED["tiny"])
    assert unknown > 20, "pieces that the list lacks are among them"


def test_the_real_models_pieces_are_read_as_the_reference_reads_them(tmp_path: pathlib.Path) -> None:
    write_real(tmp_path, model_file("marian-enpt"))
    found = differing(opened(tmp_path), EXPECTED["enpt"])
    assert [text for text in found if not LOST.search(text)] == []
    assert len(found) == sum(LOST.search(text) is not None for text in MARIAN_TEXTS) == 4


def test_a_language_in_front_is_one_token_and_elsewhere_text(folder: pathlib.Path) -> None:
    made = opened(folder)
    code = made.encode(">>fra<<hello", special=False)[0]
    assert made.token(code) == ">>fra<<"
    assert code not in made.encode("hello >>fra<<", special=False)
    assert made.encode(">>zzz<<hello", special=False)[0] == made.unknown


def test_no_text_becomes_a_control_token(folder: pathlib.Path) -> None:
    made = opened(folder)
    for text in ("a</s>b", "<pad>", ">></s><<", "</s>"):
        for special in (False, True):
            ids = made.encode(text, special=special)
            assert not {made.special_tokens["</s>"], made.special_tokens["<pad>"]} & set(ids), text


def test_ids_of_either_language_come_back_as_text(folder: pathlib.Path) -> None:
    made = opened(folder)
    ids = made.encode("hello the world", special=False)
    text = made.decode([id for id in ids if id != made.unknown])
    assert text.replace(" ", "") in "hellotheworld" or "the" in text
    assert made.decode([0]) == ""
    assert made.vocab_size == len(json.loads((folder / "vocab.json").read_text()))


@pytest.mark.parametrize(
    ("vocab", "more", "reason"),
    [
        ("{", {}, "no JSON"),
        ("[]", {}, "an object of pieces"),
        ('{"</s>": -1, "<unk>": 1}', {}, "an object of pieces"),
        ('{"</s>": 1, "<unk>": 1}', {}, "one id for two pieces"),
        ('{"a": 1}', {}, "lacks '<unk>'"),
        ("{}", {"separate_vocabs": True}, "apart"),
    ],
)
def test_broken_files_are_refused_by_the_reason(
    vocab: str, more: dict[str, Any], reason: str, folder: pathlib.Path
) -> None:
    (folder / "vocab.json").write_text(vocab)
    with pytest.raises(BadModelFile, match=reason):
        opened(folder, **more)
