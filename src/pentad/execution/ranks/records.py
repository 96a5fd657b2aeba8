"""A model's spec as plain data, for ranks that have no file of the model."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any, Final

from pentad.errors import BackendFailed
from pentad.execution import classifier, layers, mixers, positions, recurrences, spec
from pentad.execution.ranks import layout

_MODULES: Final[tuple[ModuleType, ...]] = (
    classifier,
    layers,
    mixers,
    positions,
    recurrences,
    spec,
    layout,
)
_RECORDS: Final[dict[str, type]] = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and is_dataclass(kind)
}
"""The only types that are made of what comes in."""


def to_plain(record: object) -> Any:
    """Records as lists of their name and fields; equal layers are written once."""
    if isinstance(record, tuple) and record and all(isinstance(item, layers.Block) for item in record):
        kinds = list(dict.fromkeys(record))
        return {"blocks": [to_plain(kind) for kind in kinds], "order": [kinds.index(b) for b in record]}
    if isinstance(record, tuple):
        return [to_plain(item) for item in record]
    if is_dataclass(record):
        values = {f.name: to_plain(getattr(record, f.name)) for f in fields(record) if f.init}
        return {"record": type(record).__name__, "values": values}
    return record


def of_plain(data: Any) -> Any:
    """What `to_plain` wrote. Raises BackendFailed for anything else."""
    try:
        return _made(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BackendFailed(f"what came is no model's description: {error}") from None


def _made(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_made(item) for item in data)
    if isinstance(data, dict) and "blocks" in data:
        kinds = [_made(kind) for kind in data["blocks"]]
        return tuple(kinds[i] for i in data["order"])
    if isinstance(data, dict):
        return _RECORDS[data["record"]](**{name: _made(value) for name, value in data["values"].items()})
    return data
