"""What a model family is: a mapping from a published config and tensor names to our own terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pentad.errors import BadModelFile
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A part of a fused tensor: some of its output rows.

    `start` and `count` are given the spec, since they are sums of head counts and sizes.
    """

    name: str
    start: Callable[[ModelSpec], int]
    count: Callable[[ModelSpec], int]


Name = str | Rows
Names = Mapping[str, Name]
"""Canonical name to name in the file; `{i}` stands for the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family: how to read its description and where its tensors are.

    `describe_gguf` takes the metadata with the `architecture.` prefix taken off and the container
    (for sizes that only tensors tell); `describe_config` takes `config.json`.
    """

    name: str
    describe_gguf: Callable[[Fields, Container], ModelSpec]
    describe_config: Callable[[Fields], ModelSpec]
    gguf_names: Names
    config_names: Names
    optional_prefixes: tuple[str, ...] = ()
    """Prefixes that some publishers put before all names of `config_names`, e.g. `bert.`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedWeights:
    """A container under canonical names (execution/weights.py). Nothing is copied."""

    container: Container
    where: Mapping[str, tuple[str, int, int] | str] = field(default_factory=dict)
    """Canonical name to name in the file, or to (name, first row, rows)."""

    def names(self) -> Iterable[str]:
        return self.where.keys()

    def tensor(self, name: str) -> StoredTensor:
        """The view of that tensor. Raises KeyError."""
        place = self.where[name]
        if isinstance(place, str):
            return dataclasses.replace(self.container.tensor(place), name=name)
        source, start, count = place
        return _rows(self.container.tensor(source), name, start, count)


def _rows(whole: StoredTensor, name: str, start: int, count: int) -> StoredTensor:
    """Rows are stored one after another in whole blocks, so a range of rows is a range of bytes."""
    rows = whole.shape[0]
    row_bytes = whole.data.size // rows
    data = whole.data[start * row_bytes : (start + count) * row_bytes]
    return StoredTensor(name=name, format=whole.format, shape=(count, *whole.shape[1:]), data=data)


def bind(family: Family, names: Names, spec: ModelSpec, container: Container, source: str) -> MappedWeights:
    """The weights of `spec` in `container`, every tensor present and of the right shape.

    Raises BadModelFile naming the first tensor that is missing or misshapen.
    """
    prefix = next(
        (p for p in family.optional_prefixes if any(t.startswith(p) for t in container.tensors)), ""
    )
    where: dict[str, tuple[str, int, int] | str] = {}
    for canonical, shape in spec.tensors().items():
        name, rows = _locate(names, spec, canonical, prefix)
        info = container.tensors.get(name)
        if info is None:
            raise BadModelFile(f"{source!r} lacks the tensor {name!r}, which a {family.name} model needs")
        found = info.shape
        if rows is not None and found and rows[0] + rows[1] <= found[0]:
            found = (rows[1], *found[1:])
        if found != shape:
            raise BadModelFile(f"{source!r}: tensor {name!r} has shape {info.shape}, its config says {shape}")
        where[canonical] = name if rows is None else (name, *rows)
    return MappedWeights(container=container, where=MappingProxyType(where))


def _locate(names: Names, spec: ModelSpec, canonical: str, prefix: str) -> tuple[str, tuple[int, int] | None]:
    """The name in the file of one canonical name, and its rows if it is part of a fused tensor."""
    parts = canonical.split(".")
    layer = parts[1] if parts[0] == "layers" else ""
    key = ".".join(["layers", "{i}", *parts[2:]]) if layer else canonical
    suffix = ".bias" if key.endswith(".bias") else ".weight"
    place = names[key.removesuffix(".bias")]
    name = place if isinstance(place, str) else place.name
    full = prefix + name.replace("{i}", layer) + suffix
    return full, None if isinstance(place, str) else (place.start(spec), place.count(spec))


def check_geometry(fields: Fields, build: Callable[[], ModelSpec]) -> ModelSpec:
    """The spec, or BadModelFile for sizes that no model can have."""
    try:
        return build()
    except (ValueError, ZeroDivisionError) as error:
        raise BadModelFile(f"{fields.source!r} describes an impossible model: {error}") from error
