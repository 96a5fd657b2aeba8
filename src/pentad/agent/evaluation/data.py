"""Data files of suites: JSON lines in a folder that the user names."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from pentad.agent.evaluation.base import CaseSource
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json


def lines_of(source: CaseSource, suite: str, file: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises InvalidRequest where no folder was named, the file is not in it, or a line is no object.
    """
    if source.data is None:
        raise InvalidRequest(
            f"suite {suite!r} reads {file!r}, and no folder of data is named",
            hint="give --data FOLDER",
            param="data",
        )
    path = pathlib.Path(source.data) / file
    if not path.is_file():
        raise InvalidRequest(
            f"suite {suite!r} reads {file!r}, which is not in {str(source.data)!r}",
            hint="give the folder that holds it with --data",
            param="data",
        )
    with path.open(encoding="utf-8", errors="strict") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _object(line, path, number)
        except UnicodeDecodeError:
            raise InvalidRequest(f"{str(path)!r} is no UTF-8 text", hint="give JSON lines") from None


def field_of(item: dict[str, Any], name: str, kind: type, file: str) -> Any:
    """A field of a line. Raises InvalidRequest where it is not there or of another type."""
    value = item.get(name)
    if not isinstance(value, kind):
        raise InvalidRequest(
            f"a line of {file!r} has no field {name!r} of type {kind.__name__}",
            hint="give the published file",
            param="data",
        )
    return value


def _object(line: str, path: pathlib.Path, number: int) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise InvalidRequest(f"{path}:{number} is no JSON: {error}", hint="give JSON lines") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path}:{number} is no JSON object", hint="give JSON lines")
    return value
