"""Reads workload files, YAML or JSON lines; an error names the line and what to change."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pentad.agent.evaluation.workload import Task, TaskClass, Workload
from pentad.errors import InvalidRequest, PentadError
from pentad.json_text import parse_json
from pentad.yaml_text import read_yaml

_HINT = "pentad bench elastic --schema prints what a workload file may hold"


def read_workload(path: pathlib.Path) -> Workload:
    """The workload of a YAML file, or of JSON lines (`.jsonl`): a class or a task on each.

    A line that has a `slo_class` is a task, any other a class.

    Raises InvalidRequest with file, line and remedy.
    """
    if not path.is_file():
        raise InvalidRequest(f"there is no workload at {str(path)!r}", hint="give a file", param="workload")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _wrong(path, 1, "it is no UTF-8 text") from None
    return _of_lines(text, path) if path.suffix == ".jsonl" else _of_yaml(text, path)


def schema_json() -> str:
    """The JSON Schema of a workload file in YAML, for editors."""
    schema = TypeAdapter(Workload).json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "workload.yaml"}
    return json.dumps(schema, indent=2) + "\n"


def _of_yaml(text: str, path: pathlib.Path) -> Workload:
    try:
        value = read_yaml(text)
    except ValueError as error:
        raise _wrong(path, 1, str(error)) from None
    try:
        return TypeAdapter(Workload).validate_python(value)
    except ValidationError as error:
        place, told = _first(error)
        raise _wrong(path, _line_of(text, place), told) from None
    except PentadError as error:  # a range or a name that a part of it checks itself
        raise _wrong(path, _line_of(text, _place_of(value, error)), str(error.message)) from None


def _place_of(value: Any, error: PentadError) -> tuple[int | str, ...]:
    """Where the part stands that refuses itself as `error` says."""
    for name, kind in (("classes", TaskClass), ("tasks", Task)):
        for number, part in enumerate(value[name]):
            try:
                TypeAdapter(kind).validate_python(part)
            except PentadError:
                return (name, number, error.param or "")
    return ()


def _of_lines(text: str, path: pathlib.Path) -> Workload:
    classes: list[TaskClass] = []
    tasks: list[Task] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            raise _wrong(path, number, f"it is no JSON: {error}") from None
        try:
            if isinstance(value, dict) and "slo_class" in value:
                tasks.append(TypeAdapter(Task).validate_python(value))
            else:
                classes.append(TypeAdapter(TaskClass).validate_python(value))
        except ValidationError as error:
            raise _wrong(path, number, _first(error)[1]) from None
        except PentadError as error:
            raise _wrong(path, number, str(error.message)) from None
    try:
        return Workload(classes=tuple(classes), tasks=tuple(tasks))
    except ValueError as error:
        raise _wrong(path, len(text.splitlines()) or 1, str(error)) from None


def _first(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Place and words of the first thing that is wrong."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    said = str(found["msg"]).removeprefix("Value error, ")
    where = ".".join(map(str, found["loc"]))
    return found["loc"], f"{where}: {said}" if where else said


def _line_of(text: str, place: tuple[int | str, ...]) -> int:
    """The line of the value at a place, or of the nearest thing around it that is there."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 0 if node is None else node.start_mark.line
    for key in place:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == key), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        else:
            break
        if node is None:
            break
        line = node.start_mark.line
    return int(line) + 1


def _wrong(path: pathlib.Path, line: int, told: str) -> InvalidRequest:
    return InvalidRequest(f"{path}:{line}: {told}", hint=_HINT, param="workload")
