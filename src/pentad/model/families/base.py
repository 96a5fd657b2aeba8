"""What a model family is: a mapping from a published config and tensor names to our own terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

from pentad.errors import BadModelFile
from pentad.execution.mixers import Shape
from pentad.execution.spec import ModelSpec
from pentad.model.families.harmless import PAGE, refuse_unread
from pentad.model.families.mapped import Bound, MappedWeights
from pentad.model.families.places import Computed, Constant, FirstOf, Name, Names, Place, Site
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container
from pentad.model.images.input import ImageInput

_MAIN = "model."
_ENCODER = "encoder."
_WITHIN = ("model.language_model.", "model.text_model.", "language_model.model.")
"""In the place of a decoder's main part, where the model has parts for images beside it."""
FamilyNames = Names | Callable[[ModelSpec, Fields], Names]
"""Places of a family's tensors, or what tells them for a spec and its description, where forms differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family: how to read its description and where its tensors are.

    `describe_gguf` takes the metadata with the `architecture.` prefix taken off and the container
    (for sizes that only tensors tell); `describe_config` takes `config.json`.
    """

    name: str
    describe_config: Callable[[Fields], ModelSpec]
    config_names: FamilyNames
    describe_gguf: Callable[[Fields, Container], ModelSpec] | None = None
    """None: no GGUF file of the family is published."""
    gguf_names: FamilyNames = field(default_factory=dict)
    optional_prefixes: tuple[str, ...] = ()
    """Prefixes that some publishers put before names of `config_names`, e.g. `bert.`; what stands beside the
    model, as a classifier, has none."""
    harmless: frozenset[str] = frozenset()
    """Keys of its `config.json` that change nothing, beyond those of harmless.py; all others must be read."""
    images: Callable[[Fields, Fields, Container], ImageInput] | None = None
    """Of families that take images: what `config.json` and `preprocessor_config.json` say of them, and where
    in the container their tower's weights lie."""


def places(names: FamilyNames, spec: ModelSpec, fields: Fields) -> Names:
    """Where a family's tensors are in a file of that description."""
    return names(spec, fields) if callable(names) else names


def bind(family: Family, names: Names, spec: ModelSpec, container: Container, source: str) -> MappedWeights:
    """The weights of `spec` in `container`, every tensor present and of the right shape.

    Raises BadModelFile naming the first tensor that is missing or misshapen.
    """
    prefix = next(
        (p for p in family.optional_prefixes if any(t.startswith(p) for t in container.tensors)), ""
    )
    finder = _Finder(family=family, container=container, source=source, prefix=prefix)
    where = {}
    for canonical, shape in spec.tensors().items():
        site, place = _site(spec, canonical, names)
        where[canonical] = finder.bound(site, place, shape)
    return MappedWeights(container=container, where=MappingProxyType(where))


def _site(spec: ModelSpec, canonical: str, names: Names) -> tuple[Site, Name]:
    """Which tensor a canonical name means, and where the family says that it lies."""
    name = canonical.removeprefix(_ENCODER)
    stack = canonical.removesuffix(name)
    head, _, rest = name.partition(".")
    layer, _, behind = rest.partition(".") if head == "layers" else ("", "", "")
    key = stack + (f"layers.{{i}}.{behind}" if layer else name)
    site = Site(
        spec=spec, layer=int(layer) if layer else None, bias=key.endswith(".bias"), encoder=bool(stack)
    )
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
        """Where it lies; tensors that are given a value have no place."""
        if isinstance(named, Constant):
            return Bound(files=(), shape=shape, site=site, filled=named.value)
        if isinstance(named, Computed):
            return Bound(files=(), shape=shape, site=site, computed=named.values)
        choices = named.places if isinstance(named, FirstOf) else (named,)
        options = [Place(name=one) if isinstance(one, str) else one for one in choices]
        place = next((one for one in options if self._has(self._name(one, site))), options[-1])
        name = self._name(place, site)
        if place.absent is not None and not self._has(name):
            return Bound(files=(), shape=shape, site=site, filled=place.absent)
        members = None if place.members is None else place.members(site)
        files = (name,) if members is None else tuple(name.replace("{e}", str(e)) for e in range(members))
        stacked, joined = members is not None and not place.joined, place.joined
        each = shape[1:] if stacked else (shape[0] // len(files), *shape[1:])
        for file in files:
            self._check(file, place, site, each)
        return Bound(files=files, shape=shape, site=site, steps=place.steps, stacked=stacked, joined=joined)

    def _name(self, place: Place, site: Site) -> str:
        """In the file: with the prefix where it is there so, without that of a decoder's main part where the
        file leaves it out, as embedding models do, or with another one in its place."""
        suffix = place.suffix if place.suffix is not None else ".bias" if site.bias else ".weight"
        name = place.name.replace("{i}", "" if site.layer is None else str(site.layer)) + suffix
        spellings = [self.prefix + name, name, name.removeprefix(_MAIN), f"language_model.{name}"]
        if name.startswith(_MAIN):
            spellings += [part + name.removeprefix(_MAIN) for part in _WITHIN]
        return next((one for one in spellings if self._has(one)), name)

    def _has(self, name: str) -> bool:
        return name.replace("{e}", "0") in self.container.tensors

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


def spec_of_config(family: Family, fields: Fields) -> ModelSpec:
    """The spec of a `config.json`. Raises BadModelFile for what can't be, and for a key that is not read."""
    spec = possible(fields, lambda: family.describe_config(fields))
    refuse_unread(fields, family.name, family.harmless)
    return spec


def spec_of_gguf(family: Family, fields: Fields, container: Container) -> ModelSpec:
    """The spec of GGUF metadata without their architecture's prefix. Raises BadModelFile."""
    describe = family.describe_gguf
    if describe is None:
        raise BadModelFile(
            f"{fields.source!r} is a GGUF file of the family {family.name!r}, of which none is known",
            hint=f"use its safetensors, or see {PAGE}",
        )
    return possible(fields, lambda: describe(fields, container))


def possible(fields: Fields, build: Callable[[], ModelSpec]) -> ModelSpec:
    """The spec, or BadModelFile for sizes that no model can have."""
    try:
        return build()
    except (ValueError, ZeroDivisionError) as error:
        raise BadModelFile(f"{fields.source!r} describes an impossible model: {error}") from error
