"""A spec as plain data for people: layers that are alike are told once."""

from __future__ import annotations

import dataclasses
from itertools import groupby
from typing import Any

from pentad.execution.spec import ModelSpec


def spec_summary(spec: ModelSpec) -> dict[str, Any]:
    """The fields of a spec and of its main stack; `layers` has a record for each run of equal ones."""
    plain = _fields(spec) | _fields(spec.stack) | {"layers": {}}
    for name in ("stack", "windows", "_attention", "blocks"):
        del plain[name]
    first = 0
    for block, members in groupby(spec.blocks):
        last = first + len(list(members)) - 1
        plain["layers"][str(first) if first == last else f"{first}-{last}"] = dataclasses.asdict(block)
        first = last + 1
    return plain


def _fields(record: Any) -> dict[str, Any]:
    """Field to value, records within as plain data, but for the layers."""
    found = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {name: _plain(value) for name, value in found.items() if name != "blocks"} | {"blocks": ()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_record else value
