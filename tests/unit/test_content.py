"""Text and parts as one sequence, and data that are what they are said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad.content import Media, Part, is_text, joined, media, signature, split, types_of
from pentad.errors import InvalidRequest
from pentad.types import Message

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
IMAGE = media("image", "image/png", PNG)
SAMPLES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP",
    "audio/wav": b"RIFF\x00\x00\x00\x00WAVE",
    "audio/mpeg": b"ID3\x04",
    "audio/flac": b"fLaC",
    "audio/ogg": b"OggS",
    "application/pdf": b"%PDF-1.7",
}


def merged(parts: list[Part]) -> list[Part]:
    """The sequence with texts that follow one another made one, and without empty ones beside media."""
    out: list[Part] = []
    media = [part for part in parts if isinstance(part, Media)]
    for part in [part for part in parts if part != ""] if media else parts or [""]:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += f"\n{part}"
        else:
            out.append(part)
    return out


@given(st.lists(st.one_of(st.just(IMAGE), st.text(st.sampled_from("a\n"), max_size=3)), max_size=7))
def test_a_sequence_of_parts_comes_back_as_it_was(parts: list[Part]) -> None:
    text, found = joined(parts)
    back = [replace(part, at=0) if isinstance(part, Media) else part for part in split(text, found)]
    assert back == merged(parts)


def test_plain_text_is_one_part() -> None:
    assert Message(role="user", content="hello").parts == ("hello",)


def test_text_in_front_moves_the_media_along() -> None:
    text, found = joined(["Look:", IMAGE, "What is it?"])
    moved = Message(role="user", content=text, media=found).behind("Notes.\n\n")
    assert [p if isinstance(p, str) else p.kind for p in moved.parts] == [
        "Notes.\n\nLook:",
        "image",
        "What is it?",
    ]


def test_a_place_behind_a_text_that_was_cut_is_its_end() -> None:
    text, found = joined(["a long text", IMAGE])
    assert [p if isinstance(p, str) else p.kind for p in split(text[:4], found)] == ["a lo", "image"]


@pytest.mark.parametrize("media_type", SAMPLES)
def test_each_type_is_known_by_its_first_bytes(media_type: str) -> None:
    assert signature(SAMPLES[media_type]) == media_type
    kind = "file" if media_type.startswith("application") else media_type.partition("/")[0]
    assert media_type in types_of(kind)  # type: ignore[arg-type]
    part = media(kind, media_type, SAMPLES[media_type])  # type: ignore[arg-type]
    assert (part.media_type, part.size_bytes) == (media_type, len(SAMPLES[media_type]))


@pytest.mark.parametrize(
    ("kind", "said", "data", "words"),
    [
        ("image", "image/jpeg", PNG, "its bytes are image/png"),
        ("image", "image/png", b"GIF89a", "its bytes are image/gif"),
        ("image", "image/png", b"<svg>", "of no type that is known"),
        ("image", "", b"\x00\x01", "of no type that is known"),
        ("image", "image/png", b"RIFF\x00\x00\x00\x00WAVE", "its bytes are audio/wav"),
        ("image", "", SAMPLES["application/pdf"], "is no image"),
        ("file", "application/zip", b"PK\x03\x04", "of no type that is known"),
        ("audio", "audio/wav", b"", "is empty"),
    ],
)
def test_data_of_another_type_than_said_are_refused(kind: str, said: str, data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        media(kind, said, data)  # type: ignore[arg-type]


def test_common_other_names_of_types_are_taken() -> None:
    assert media("audio", "audio/mp3", b"ID3").media_type == "audio/mpeg"
    assert media("image", "IMAGE/JPG; q=1", SAMPLES["image/jpeg"]).media_type == "image/jpeg"


def test_text_types() -> None:
    assert all(map(is_text, ("text/plain; charset=utf-8", "application/json", "image/svg+xml", "text/csv")))
    assert not any(map(is_text, ("application/pdf", "image/png", "")))
