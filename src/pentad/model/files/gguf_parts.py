"""GGUF models split over several files, `NAME-00001-of-00003.gguf` and so on.

The first part holds the metadata; each part has its own table of tensors. Source: the split format of
llama.cpp (`gguf-split`): `split.no`, `split.count` and `split.tensors.count` in the metadata.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import BadModelFile
from pentad.execution.weights import StoredTensor
from pentad.model.files.gguf import GgufFile

_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MAX_PARTS: Final = 1024
"""Far above any model: each part is an open file."""


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts of the model that a file of this name is a part of, else that name alone."""
    found = _NAME.fullmatch(name)
    if found is None or not 1 <= (count := int(found["count"])) <= MAX_PARTS:
        return (name,)
    return tuple(f"{found['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))


def part_paths(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The same for files; a folder stands for itself."""
    return tuple(path.with_name(name) for name in part_names(path.name))


def whole_model(names: Iterable[str]) -> tuple[str, ...] | None:
    """The GGUF files of one model among these names, in order; None where they are of several, or none."""
    ggufs = {name for name in names if name.endswith(".gguf")}
    parts = part_names(min(ggufs)) if ggufs else ()
    return parts if ggufs and ggufs == set(parts) else None


def open_gguf(path: pathlib.Path) -> GgufFile:
    """The model in a file, with all its parts where it is one of several. Raises BadModelFile."""
    paths = part_paths(path)
    if len(paths) > 1:
        return GgufParts(paths)
    file = GgufFile(path)
    if (count := _number(file, "split.count", 1)) > 1:
        file.close()
        raise BadModelFile(
            f"{str(path)!r} is one of {count} parts of a model, but is not named as one",
            hint=f"name the parts {path.stem}-00001-of-{count:05}.gguf and so on, all in one folder",
        )
    return file


class GgufParts(GgufFile):
    """A split model as if it were one file: the first part's metadata, the tensors of all.

    Raises BadModelFile, naming the part, for one that is missing, damaged, of another model, or that
    repeats a tensor.
    """

    def __init__(self, paths: tuple[pathlib.Path, ...]) -> None:
        for path in paths:
            if not path.exists():
                raise BadModelFile(
                    f"the part {str(path)!r} of the model is missing",
                    hint=f"bring all {len(paths)} parts into one folder",
                )
        super().__init__(paths[0])
        self._parts: list[GgufFile] = []
        try:
            for path in paths[1:]:
                self._parts.append(GgufFile(path))
            self._where = self._joined()
        except BaseException:
            self.close()
            raise
        self.tensors = MappingProxyType({name: file.tensors[name] for name, file in self._where.items()})

    def _joined(self) -> dict[str, GgufFile]:
        where: dict[str, GgufFile] = {}
        files: list[GgufFile] = [self, *self._parts]
        for index, file in enumerate(files):
            number, count = _number(file, "split.no", index), _number(file, "split.count", len(files))
            if (number, count) != (index, len(files)):
                raise BadModelFile(
                    f"{str(file.path)!r} says that it is part {number + 1} of {count}, its name says "
                    f"{index + 1} of {len(files)}",
                    hint="give each part the name that it was published with",
                )
            for name in file.tensors:
                if name in where:
                    raise BadModelFile(
                        f"tensor {name!r} is in both {str(where[name].path)!r} and {str(file.path)!r}",
                        hint="bring the parts of one model again; these are of different ones",
                    )
                where[name] = file
        expected = _number(self, "split.tensors.count", len(where))
        if expected != len(where):
            raise BadModelFile(
                f"the {len(files)} parts of {str(self.path)!r} hold {len(where)} tensors, "
                f"the model has {expected}",
                hint="bring the parts of one model again; these are of different ones",
            )
        return where

    @property
    def size_bytes(self) -> int:
        return super().size_bytes + sum(part.size_bytes for part in self._parts)

    def raw_pairs(self) -> dict[str, bytes]:
        """As of one file: without what tells of parts."""
        return {key: data for key, data in super().raw_pairs().items() if not key.startswith("split.")}

    def tensor(self, name: str) -> StoredTensor:
        """A read-only view of the tensor's blocks. Raises KeyError."""
        file = self._where[name]
        return super().tensor(name) if file is self else file.tensor(name)

    def close(self) -> None:
        """Unmaps all parts."""
        super().close()
        for part in self._parts:
            part.close()


def _number(file: GgufFile, key: str, default: int) -> int:
    value: Any = file.metadata.get(key, default)
    if type(value) is not int or value < 0:
        raise BadModelFile(f"{str(file.path)!r}: {key!r} is {str(value)[:60]}, must be a count")
    return value
