"""What of a model of an unknown architecture the known families do not know, for the error that refuses it.

Each family is asked to read the description; the one that reads most of its keys is the nearest, and what
stops it is the part that is named: a key of the description, a tensor, or, where all of these fit, the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pentad import registry
from pentad.errors import BadModelFile
from pentad.execution.spec import ModelSpec
from pentad.model.families.base import Family, FamilyNames, bind, places, possible
from pentad.model.families.harmless import refuse_unread
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_OWN_MODEL = ("text_config", "quantization_config")
"""Objects within a `config.json` that are no part beside the model that reads text."""
_NO_WEIGHTS = ("inv_freq", "rope_freqs", "masked_bias", "attn.bias")


@dataclass(frozen=True, slots=True)
class _Reading:
    """How far a family came."""

    family: Family
    fields: Fields
    names: FamilyNames
    spec: ModelSpec | None
    trouble: str

    @property
    def keys(self) -> int:
        """Keys of the description that it asked for."""
        return len(self.fields.asked.keys() & self.fields.values.keys())


def unlike_config(fields: Fields, tensors: Callable[[], Container | None]) -> str:
    """The part of a folder that the family nearest to its `config.json` does not know."""
    beside = next((key for key, value in fields.values.items() if _stack(key, value)), None)
    if beside is not None:
        return (
            f"its {beside!r} describes a stack of layers beside the main one, of a kind that no family reads"
        )

    def describe(family: Family, copy: Fields) -> ModelSpec:
        spec = family.describe_config(copy)
        refuse_unread(copy, family.name, family.harmless)
        return spec

    read = [_read(family, fields, describe, family.config_names) for family in _families()]
    nearest = max(read, key=_rank)
    pair = fields.values.get("is_encoder_decoder") is True
    if pair and (nearest.spec is None or nearest.spec.encoder is None):
        return "its 'is_encoder_decoder' is True, and its pair of encoder and decoder is none that is read"
    return _told(nearest, tensors)


def unlike_gguf(fields: Fields, container: Container) -> str:
    """The same of a GGUF file, by its metadata without the architecture."""

    def describe(family: Family, copy: Fields) -> ModelSpec:
        assert family.describe_gguf is not None
        return family.describe_gguf(copy, container)

    asked = (family for family in _families() if family.describe_gguf is not None)
    read = [_read(family, fields, describe, family.gguf_names) for family in asked]
    return _told(max(read, key=_rank), lambda: container)


def _stack(key: str, value: object) -> bool:
    """Whether it is an object that describes layers of its own."""
    if not isinstance(value, Mapping) or not key.endswith("_config") or key in _OWN_MODEL:
        return False
    return any("layers" in name or "depth" in name for name in value)


def _families() -> Iterator[Family]:
    """Those of the table, each once; what other packages add is not asked."""
    found = (registry.load("model_family", n) for n in registry.known("model_family") if _own(n))
    yield from {id(family): family for family in found}.values()


def _own(name: str) -> bool:
    return registry.registered("model_family", name)


def _read(
    family: Family, fields: Fields, describe: Callable[[Family, Fields], ModelSpec], names: FamilyNames
) -> _Reading:
    copy = Fields(source=fields.source, values=fields.values)
    try:
        spec = possible(copy, lambda: describe(family, copy))
    except BadModelFile as error:
        return _Reading(family, copy, names, None, _without_source(error, fields))
    return _Reading(family, copy, names, spec, "")


def _rank(reading: _Reading) -> tuple[int, bool]:
    return reading.keys, reading.spec is not None


def _told(nearest: _Reading, tensors: Callable[[], Container | None]) -> str:
    name = nearest.family.name
    trouble = nearest.trouble or _tensor_trouble(nearest, tensors)
    if not trouble:
        return f"it reads as {name!r}, but its block has not been held to the published code"
    return f"nearest is the family {name!r}, but {trouble}"


def _tensor_trouble(nearest: _Reading, tensors: Callable[[], Container | None]) -> str:
    """The first tensor that is missing, misshapen or left over; nothing where all fit or none are there."""
    try:
        container = tensors()
        if container is None or nearest.spec is None:
            return ""
        where = places(nearest.names, nearest.spec, nearest.fields)
        bound = bind(nearest.family, where, nearest.spec, container, nearest.fields.source)
    except BadModelFile as error:
        return _without_source(error, nearest.fields)
    used = {file for place in bound.where.values() for file in place.files}
    extra = (n for n in container.tensors if n not in used and not any(part in n for part in _NO_WEIGHTS))
    first = next(extra, None)
    return "" if first is None else f"its tensor {first!r} has no place there"


def _without_source(error: BadModelFile, fields: Fields) -> str:
    return error.message.removeprefix(f"{fields.source!r}: ").removeprefix(f"{fields.source!r} ")
