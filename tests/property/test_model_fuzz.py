"""Damaged model files: whatever is changed, the answer is a model or BadModelFile, never another error."""

from __future__ import annotations

import functools
import json
import pathlib
import struct
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.model.files.gguf import GgufArray, GgufFile
from pentad.model.files.safetensors import SafetensorsFile
from pentad.model.loading import open_model
from pentad.model.tokenizer import from_json

NASTY = [
    0,
    1,
    7,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]


@functools.cache
def sound_gguf() -> bytes:
    return make.tiny_llama_gguf()


@functools.cache
def header_bytes() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.gguf"
        path.write_bytes(sound_gguf())
        return min(info.offset for info in GgufFile(path).tensors.values())


@st.composite
def damaged(draw: st.DrawFn, sound: bytes, area: int) -> bytes:
    """The file with a few numbers, bytes or its end changed; mostly in its first `area` bytes."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, area - 9))
        kind = draw(st.sampled_from(["u64", "u32", "byte", "cut", "insert"]))
        if kind == "u64":
            data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(NASTY)))
        elif kind == "u32":
            data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(NASTY)) & 0xFFFF_FFFF)
        elif kind == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[draw(st.integers(0, len(data))) :]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
    return bytes(data)


def read_everything(path: pathlib.Path) -> None:
    file = GgufFile(path)
    for value in file.metadata.values():
        if isinstance(value, GgufArray):
            file.values(value)
    total = sum(file.tensor(name).data.size for name in file.tensors)
    assert total <= path.stat().st_size


def refusal(attempt: Callable[[pathlib.Path], object], path: pathlib.Path) -> str | None:
    """Why the file was refused, None if it was read. Any other error is the test's failure."""
    try:
        attempt(path)
    except BadModelFile as error:
        return str(error)
    return None


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_gguf_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    content = data.draw(damaged(sound_gguf(), header_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.gguf"
        path.write_bytes(content)
        for attempt in (read_everything, open_model):
            reason = refusal(attempt, path)
            event(f"{attempt.__name__}: {'read' if reason is None else 'refused'}")
            assert reason is None or "\n" not in reason


@given(content=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_noise_after_a_sound_start_is_no_model(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.gguf"
        path.write_bytes(b"GGUF\x03\0\0\0" + content)
        refusal(read_everything, path)
        assert refusal(open_model, path) is not None


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_safetensors_is_read_or_refused(data: st.DataObject) -> None:
    sound = make.f32_safetensors(make.tensors({"a": (2, 3), "b": (4,)}))
    content = data.draw(damaged(sound, len(sound)))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.safetensors"
        path.write_bytes(content)
        if refusal(SafetensorsFile, path) is None:
            file = SafetensorsFile(path)
            assert sum(info.size_bytes for info in file.tensors.values()) <= len(content)


@pytest.mark.parametrize("step", [97])
def test_no_prefix_of_a_model_is_a_model(step: int, tmp_path: pathlib.Path) -> None:
    sound = sound_gguf()
    path = tmp_path / "a.gguf"
    for length in range(0, header_bytes(), step):
        path.write_bytes(sound[:length])
        with pytest.raises(BadModelFile):
            open_model(path)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_tokenizer_is_read_or_refused(data: st.DataObject) -> None:
    """Parts of the JSON are swapped for others of it, so that types and references go wrong."""
    state = json.loads(make.tokenizer_json())
    for _ in range(data.draw(st.integers(1, 3))):
        at = state
        while isinstance(at, dict) and at:
            key = data.draw(st.sampled_from(sorted(at)[:40]))
            inner = at[key]
            if not isinstance(inner, dict) or data.draw(st.booleans()):
                at[key] = data.draw(
                    st.sampled_from([None, 0, -1, 1 << 70, "x", [], {}, [["a", "b"]], True, inner])
                )
                break
            at = inner
    try:
        tokenizer = from_json(json.dumps(state))
    except BadModelFile:
        return
    ids = tokenizer.encode("hello <|im_end|> wörld", special=False)
    assert not set(ids) & (set(tokenizer.special_tokens.values()) - {tokenizer.unknown})
