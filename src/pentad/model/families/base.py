"""What a model family is: a mapping from a published config and tensor names to our own terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from pentad.errors import BadModelFile
from pentad.execution.mixers import Shape
from pentad.execution.spec import ModelSpec
from pentad.model.families.mapped import Bound, MappedWeights
from pentad.model.families.places import Constant, Name, Names, Place, Site
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

FamilyNames = Names | Callable[[ModelSpec], Names]
"""Places of a family's tensors, or what tells them for a spec, where forms of it differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family: how to read its description and where its tensors are.

    `describe_gguf` takes the metadata with the `architecture.` prefix taken off and the container
    (for sizes that only tensors tell); `describe_config` takes `config.json`.
    """

    name: str
    describe_gguf: Callable[[Fields, Container], ModelSpec]
    describe_config: Callable[[Fields], ModelSpec]
    gguf_names: FamilyNames
    config_names: FamilyNames
    optional_prefixes: tuple[str, ...] = ()
    """Prefixes that some publishers put before all names of `config_names`, e.g. `bert.`."""


def bind(
    family: Family, names: FamilyNames, spec: ModelSpec, container: Container, source: str
) -> MappedWeights:
    """The weights of `spec` in `container`, every tensor present and of the right shape.

    Raises BadModelFile naming the first tensor that is missing or misshapen.
    """
    table = names(spec) if callable(names) else names
    prefix = next(
        (p for p in family.optional_prefixes if any(t.startswith(p) for t in container.tensors)), ""
    )
    finder = _Finder(family=family, container=container, source=source, prefix=prefix)
    where = {}
    for canonical, shape in spec.tensors().items():
        site, place = _site(spec, canonical, table)
        where[canonical] = finder.bound(site, place, shape)
    return MappedWeights(container=container, where=MappingProxyType(where))


def _site(spec: ModelSpec, canonical: str, names: Names) -> tuple[Site, Name]:
    """Which tensor a canonical name means, and where the family says that it lies."""
    head, _, rest = canonical.partition(".")
    layer, _, behind = rest.partition(".") if head == "layers" else ("", "", "")
    key = f"layers.{{i}}.{behind}" if layer else canonical
    site = Site(spec=spec, layer=int(layer) if layer else None, bias=key.endswith(".bias"))
    place = names[key] if key in names else names[key.removesuffix(".bias")]
    return site, place(site) if callable(place) else place


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finder:
    """Looks tensors up in one container."""

    family: Family
    container: Container
    source: str
    prefix: str

    def bound(self, site: Site, named: Name, shape: Shape) -> Bound:
        if isinstance(named, Constant):
            return Bound(files=(), shape=shape, site=site, filled=named.value)
        place = Place(name=named) if isinstance(named, str) else named
        suffix = place.suffix if place.suffix is not None else ".bias" if site.bias else ".weight"
        layer = "" if site.layer is None else str(site.layer)
        name = self.prefix + place.name.replace("{i}", layer) + suffix
        if place.absent is not None and name.replace("{e}", "0") not in self.container.tensors:
            return Bound(files=(), shape=shape, site=site, filled=place.absent)
        members = None if place.members is None else place.members(site)
        files = (name,) if members is None else tuple(name.replace("{e}", str(e)) for e in range(members))
        for file in files:
            self._check(file, place, site, shape if members is None else shape[1:])
        return Bound(files=files, shape=shape, site=site, steps=place.steps, stacked=members is not None)

    def _check(self, name: str, place: Place, site: Site, shape: Shape) -> None:
        info = self.container.tensors.get(name)
        if info is None:
            raise BadModelFile(
                f"{self.source!r} lacks the tensor {name!r}, which a {self.family.name} model needs"
            )
        found = info.shape
        try:
            for step in place.steps:
                found = step.shape(found, site)
        except (ValueError, IndexError):
            found = ()
        if found != shape:
            raise BadModelFile(
                f"{self.source!r}: tensor {name!r} has shape {info.shape}, its config says {shape}"
            )


def check_geometry(fields: Fields, build: Callable[[], ModelSpec]) -> ModelSpec:
    """The spec, or BadModelFile for sizes that no model can have."""
    try:
        return build()
    except (ValueError, ZeroDivisionError) as error:
        raise BadModelFile(f"{fields.source!r} describes an impossible model: {error}") from error
