"""Files of a model folder that are no weights: bytes, texts and JSON of a sane size."""

from __future__ import annotations

import pathlib
from typing import Any, Final

from pentad.errors import BadModelFile
from pentad.json_text import parse_json
from pentad.model.files.fields import Fields

MAX_FILE_BYTES: Final = 1 << 28


def read_file(path: pathlib.Path) -> bytes:
    """All of a file, of a sane size. Raises BadModelFile."""
    try:
        if not path.is_file():
            raise BadModelFile(f"{str(path)!r} is not a file; a model folder needs it")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise BadModelFile(f"{str(path)!r} has {size} bytes, at most {MAX_FILE_BYTES} are read")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadModelFile(f"cannot read {str(path)!r}: {error}") from error


def read_text(path: pathlib.Path) -> str:
    """A text file in UTF-8. Raises BadModelFile."""
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise BadModelFile(f"cannot read {str(path)!r}: {error}") from error


def read_value(path: pathlib.Path) -> Any:
    """What a JSON file holds. Raises BadModelFile."""
    try:
        return parse_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{str(path)!r} is not valid JSON: {error}") from error


def read_json(path: pathlib.Path, *, required: bool = False) -> Fields:
    """The object in a JSON file; an absent file that is not required is an empty one."""
    if not required and not path.exists():
        return Fields(source=str(path), values={})
    value = read_value(path)
    if not isinstance(value, dict):
        raise BadModelFile(f"{str(path)!r} is no JSON object")
    return Fields(source=str(path), values=value)
