"""SentencePiece's own files, against what the library itself makes of the same texts (recorded)."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.errors import BadModelFile
from pentad.model.files import protobuf
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_files import tokenizer_of
from pentad.model.tokenizer_sentencepiece import from_sentencepiece

DATA = pathlib.Path(__file__).parent.parent / "data" / "sentencepiece"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text("utf-8"))


def tokenizer(name: str, **settings: Any) -> Tokenizer:
    added = settings.pop("added", {})
    data = (DATA / f"{name}.model").read_bytes()
    return from_sentencepiece(data, added=added, settings=settings, source=name)


@pytest.mark.parametrize("name", EXPECTED["ids"])
def test_pieces_are_those_of_the_library_itself(name: str) -> None:
    made = tokenizer(name)
    pairs = list(zip(EXPECTED["texts"], EXPECTED["ids"][name], strict=True))
    if name == "unigram":  # where spaces are joined, the library tells its own mark in a text from a space
        pairs = [(text, ids) for text, ids in pairs if text == text.strip("▁")]
    assert [text for text, ids in pairs if made.encode(text, special=False) != ids] == []
    assert len(pairs) > 145


def test_bytes_and_spaces_come_back() -> None:
    made = tokenizer("bpe")
    for text in filter(None, EXPECTED["texts"]):
        decoded = made.decode(made.encode(text, special=False))
        assert decoded == " " + text.replace("▁", " ")


def test_a_space_stands_in_front_of_the_text_and_not_behind_control_tokens() -> None:
    added = {"[INST]": (700, True), "[TOOL]": (703, True)}
    made, legacy = tokenizer("bpe", added=added), tokenizer("bpe", added=added, legacy=True)
    assert made.prefix == (1,)
    assert made.vocab_size == 704
    inner = [made.token(id) for id in made.encode("<s>[INST]the", special=True)]
    assert inner[:2] == ["<s>", "[INST]"]
    assert "".join(inner[2:]) == "the"
    assert "".join(made.token(id) for id in made.encode("the", special=True)) == "▁the"
    spelled = [legacy.token(id) for id in legacy.encode("<s>[INST]the", special=True)]
    assert "".join(spelled[2:]) == "▁the"
    assert 700 not in made.encode("[INST]", special=False)
    assert made.token(701) != made.token(702)


def test_frames_follow_the_settings() -> None:
    assert (tokenizer("unigram").prefix, tokenizer("unigram").suffix) == ((), (1,))
    both = tokenizer("bpe", add_bos_token=False, add_eos_token=True)
    assert (both.prefix, both.suffix) == ((), (2,))
    assert tokenizer("bpe", add_prefix_space=False).encode("the", special=False) != tokenizer("bpe").encode(
        "the", special=False
    )


def test_a_folder_s_pieces_are_found_by_their_names(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadModelFile, match=r"tokenizer\.model"):
        tokenizer_of(tmp_path, family="llama")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(BadModelFile) as refused:
        tokenizer_of(tmp_path, family="xlm-roberta")
    assert "does not tell the ids" in (refused.value.hint or "")
    (tmp_path / "tokenizer.model.v2").write_bytes((DATA / "bpe.model").read_bytes())
    (tmp_path / "tokenizer.model.v11").write_bytes((DATA / "bpe_gemma.model").read_bytes())
    decoder = {"710": {"content": "<|im_end|>", "special": True}, "711": {"content": "<x>", "special": False}}
    found = tokenizer_of(tmp_path, family="llama", settings={"added_tokens_decoder": decoder})
    assert found.special_tokens["<|im_end|>"] == 710
    assert "<start_of_turn>" in found.special_tokens
    assert found.encode("<x>", special=False) == [711]
    (tmp_path / "tokenizer.model").write_bytes((DATA / "bpe.model").read_bytes())
    assert "<start_of_turn>" not in tokenizer_of(tmp_path, family="llama").special_tokens


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(*parts: tuple[int, int | bytes]) -> bytes:
    out = b""
    for number, value in parts:
        kind = 0 if isinstance(value, int) else 2
        body = varint(value) if isinstance(value, int) else varint(len(value)) + value
        out += varint(number << 3 | kind) + body
    return out


@pytest.mark.parametrize(
    ("trained", "normalized", "why"),
    [
        ([(3, 3)], [], "words"),
        ([(3, 4)], [], "characters"),
        ([(3, 9)], [], "of 9"),
        ([(3, 2), (24, 1)], [], "spaces"),
        ([(3, 2)], [(5, 0)], "spaces"),
        ([(3, 1), (40, 77)], [], "lacks"),
    ],
)
def test_what_is_not_read_is_refused_by_name(trained: Any, normalized: Any, why: str) -> None:
    data = message((1, message((1, b"a"))), (2, message(*trained)), (3, message(*normalized)))
    with pytest.raises(BadModelFile, match=why):
        from_sentencepiece(data, added={}, settings={}, source="x")


def test_added_tokens_need_ids_of_their_own() -> None:
    for added in ({"the one": (-1, True)}, {"the one": (1 << 40, True)}, {"<s>": (705, True)}):
        with pytest.raises(BadModelFile, match="added token"):
            tokenizer("bpe", added=added)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=60), at=st.integers(0, 9000), cut=st.integers(0, 9000))
def test_damaged_files_are_refused_or_read_and_nothing_else(data: bytes, at: int, cut: int) -> None:
    whole = (DATA / "bpe.model").read_bytes()
    for damaged in (data, whole[:at] + data + whole[at + len(data) :], whole[:cut]):
        with contextlib.suppress(BadModelFile):
            from_sentencepiece(damaged, added={}, settings={}, source="x").encode("abc", special=False)


def test_fields_have_the_values_that_were_written() -> None:
    data = message((1, 300), (2, b"xy")) + varint(3 << 3 | 5) + b"\x00\x00\x80\x3f"
    data += varint(4 << 3) + b"\xff" * 9 + b"\x01"
    one, two, three, four = protobuf.fields(data, "x")
    assert (one.integer(), two.data(), three.number32(), four.integer()) == (300, b"xy", 1.0, -1)
    for wrong in (one.data, one.number32, two.integer, three.data):
        with pytest.raises(ValueError, match="field"):
            wrong()
