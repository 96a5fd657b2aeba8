"""GGUF models in several files: read as one, and what is amiss with a part is said by its name."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable

import numpy as np
import pytest

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.execution.native.packed import file_identity
from pentad.model.files.gguf import GgufFile
from pentad.model.files.gguf_parts import GgufParts, part_names, part_paths, whole_model
from pentad.model.loading import open_model
from pentad.model.sources.base import PathRef
from pentad.model.sources.local import LocalSource

ARRAYS = make.tensors(make.llama_gguf_shapes())
NAMES = [list(ARRAYS)[:5], list(ARRAYS)[5:9], list(ARRAYS)[9:]]


def split_pairs(number: int, count: int = 3, tensors: int = len(ARRAYS)) -> list[bytes]:
    return [
        make.pair("split.no", make.U16, number),
        make.pair("split.count", make.U16, count),
        make.pair("split.tensors.count", make.I32, tensors),
    ]


def part(number: int, names: Iterable[str], count: int = 3, tensors: int = len(ARRAYS)) -> bytes:
    about = [*make.llama_pairs(), *make.tokenizer_pairs()] if number == 0 else []
    return make.f32_gguf(
        [*about, *split_pairs(number, count, tensors)], {name: ARRAYS[name] for name in names}
    )


def path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"tiny-{number + 1:05}-of-00003.gguf"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for number, names in enumerate(NAMES):
        path(tmp_path, number).write_bytes(part(number, names))
    return tmp_path


@pytest.mark.parametrize("given", [0, 2])
def test_parts_are_one_model_whichever_is_named(given: int, folder: pathlib.Path) -> None:
    files = open_model(path(folder, given))
    assert files.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert set(files.container.tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert files.container.tensor(name).data.tobytes() == array.tobytes()
    assert not any(key.startswith("split.") for key in files.container.raw_pairs())  # type: ignore[attr-defined]
    files.close()


def test_a_missing_part_is_named(folder: pathlib.Path) -> None:
    path(folder, 1).unlink()
    with pytest.raises(
        BadModelFile, match=re.escape(f"{path(folder, 1).name}' of the model is missing")
    ) as e:
        open_model(path(folder, 0))
    assert e.value.hint == "bring all 3 parts into one folder"
    with pytest.raises(BadModelFile, match=re.escape(path(folder, 1).name)):
        LocalSource(ref=PathRef(path=path(folder, 0))).look()


WRONG = {
    "another number": (1, part(2, NAMES[1]), "part 3 of 3, its name says 2 of 3"),
    "another count": (1, part(1, NAMES[1], count=4), "part 2 of 4, its name says 2 of 3"),
    "a tensor twice": (1, part(1, [NAMES[0][0], *NAMES[1]]), "is in both"),
    "a tensor less": (
        2,
        part(2, NAMES[2][1:]),
        f"hold {len(ARRAYS) - 1} tensors, the model has {len(ARRAYS)}",
    ),
    "no count": (1, make.f32_gguf([make.pair("split.no", make.STR, "1")], {}), "'split.no' is 1, must be"),
    "no model": (2, b"GGUF", "00003-of-00003.gguf' is not a readable GGUF file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_part_is_refused_by_name(case: str, folder: pathlib.Path) -> None:
    number, content, reason = WRONG[case]
    path(folder, number).write_bytes(content)
    with pytest.raises(BadModelFile, match=re.escape(reason)):
        GgufParts(part_paths(path(folder, 0)))


def test_a_part_under_another_name_says_how_to_name_it(folder: pathlib.Path) -> None:
    renamed = path(folder, 0).rename(folder / "model.gguf")
    with pytest.raises(BadModelFile, match="is one of 3 parts") as caught:
        open_model(renamed)
    assert "model-00001-of-00003.gguf" in str(caught.value.hint)


def test_packed_weights_belong_to_all_parts(folder: pathlib.Path) -> None:
    paths = part_paths(path(folder, 0))
    before = file_identity(*paths)
    path(folder, 2).write_bytes(part(2, NAMES[2]) + b"\0")
    assert file_identity(*paths) != before


def test_names_of_parts() -> None:
    assert part_names("q/m-00002-of-00002.gguf") == ("q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf")
    for single in ("m.gguf", "m-00001-of-99999.gguf", "m-00000-of-00000.gguf"):
        assert part_names(single) == (single,)
    assert whole_model(["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "x.json"]) is not None
    assert whole_model(["a-00001-of-00002.gguf"]) is None
    assert whole_model(["a.gguf", "b.gguf"]) is None
    assert whole_model(["x.json"]) is None


def test_each_part_is_a_sound_file_by_itself(folder: pathlib.Path) -> None:
    for number, names in enumerate(NAMES):
        file = GgufFile(path(folder, number))
        assert list(file.tensors) == names
        np.testing.assert_array_equal(
            file.tensor(names[0]).data.view(np.float32), ARRAYS[names[0]].reshape(-1)
        )
        file.close()
