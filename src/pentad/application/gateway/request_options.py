"""PentadOptions from wherever a client may write them: body, metadata, headers, Dynamo's hints.

    body `pentad`  >  `metadata.pentad_*`  >  headers `x-pentad-*`  >  `nvext.agent_hints`

A misspelt name of ours is refused with the nearest: an objective that is silently ignored is worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from starlette.datastructures import Headers

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.exchange import Exchange
from pentad.application.gateway.fields import unread
from pentad.application.gateway.schemas.common import (
    AgentHints,
    BudgetLimits,
    FollowUp,
    NvExtensions,
    PentadOptions,
    Slo,
)
from pentad.errors import InvalidRequest
from pentad.registry import near
from pentad.resource.service_classes import ServiceClass, class_named, class_of, label_of
from pentad.types import Request

_HEADER = "x-pentad-"
_METADATA = "pentad_"
_HINTS = "nvext.agent_hints."
_TIER = 1000
"""Levels of priority that one of Dynamo's strict tiers stands for."""
_STRUCTS: Mapping[str, type[msgspec.Struct]] = {"slo": Slo, "budget": BudgetLimits, "hints": FollowUp}
_OBJECTS = frozenset({*_STRUCTS, "graph"})
_NAMES = tuple(field.name for field in msgspec.structs.fields(PentadOptions))


class Wire(Protocol):
    """A request body that may carry options."""

    @property
    def pentad(self) -> PentadOptions | None: ...
    @property
    def metadata(self) -> Mapping[str, Any] | None: ...
    @property
    def nvext(self) -> NvExtensions | None: ...


def options_of(
    wire: Wire,
    headers: Headers,
    exchange: Exchange,
    classes: Sequence[ServiceClass],
    *,
    agent: str | None = None,
) -> PentadOptions:
    """The options of a request; each is taken from the first place that has it.

    In metadata and headers `graph`, `hints`, `slo` and `budget` are JSON objects, the others plain values.
    What they leave open is as its service class, one of `classes`, says: the one it names, or else that of
    its agent, tenant or path.
    Raises InvalidRequest or UnknownName naming the field at fault, with the nearest name where it is unknown.
    """
    _refuse_unknown(exchange)
    options = wire.pentad
    for given in (
        _from_texts(_named(wire.metadata or {}, _METADATA), f"metadata.{_METADATA}"),
        _from_texts(_named(headers, _HEADER), _HEADER),
        None if wire.nvext is None else _from_dynamo(wire.nvext.agent_hints),
    ):
        if given is not None:
            options = given if options is None else _completed(options, given)
    options = options or PentadOptions()
    exchange.energy = options.energy
    own = class_of(classes, tenant=exchange.tenant, agent=agent, route=exchange.path)
    named = own if options.slo_class is None else class_named(options.slo_class, classes)
    if named is not None:
        exchange.slo_class = named.name
        options = _in_class(options, named)
    _check_graph(options)
    return options


def prioritized(request: Request, options: PentadOptions) -> Request:
    """The request with the priority of its options, unless its own field says one."""
    if options.priority is None or request.priority:
        return request
    return replace(request, priority=options.priority)


def _in_class(options: PentadOptions, each: ServiceClass) -> PentadOptions:
    """The options with the promises of their class where they say nothing themselves."""
    own, promised = options.slo or Slo(), each.objective
    open_fields = {
        name: getattr(promised, name)
        for name in _fields(Slo)
        if getattr(own, name) is None and getattr(promised, name) is not None
    }
    return msgspec.structs.replace(
        options,
        priority=each.priority if options.priority is None else options.priority,
        slo=msgspec.structs.replace(own, **open_fields),
        quality=each.quality if options.quality is None else options.quality,
        data_label=label_of(options.data_label, each),
    )


def _refuse_unknown(exchange: Exchange) -> None:
    """Refuses names in the body's `pentad` that are none; suggests what unknown hints of Dynamo may mean."""
    for path in exchange.ignored:
        place, _, name = path.rpartition(".")
        if place == "pentad":
            raise _unknown(path, name, _NAMES)
        if place.startswith("pentad."):
            raise _unknown(path, name, _fields(_STRUCTS.get(place.removeprefix("pentad."))))
        if path.startswith(_HINTS) and "mean" in (hint := near(name, _fields(AgentHints))):
            exchange.notices.append(f"{path[:80]} is not known; {hint}")


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in values.items() if name.lower().startswith(prefix)}


def _from_texts(given: dict[str, Any], prefix: str) -> PentadOptions | None:
    """The options that stand one by one, as text or as JSON values."""
    if not given:
        return None
    values: dict[str, Any] = {}
    for written, value in given.items():
        name = written.lower().replace("-", "_")
        if name not in _NAMES:
            shown = tuple(each.replace("_", "-") for each in _NAMES) if prefix == _HEADER else _NAMES
            raise _unknown(prefix + written, written, shown)
        values[name] = _object(value, prefix + written) if name in _OBJECTS else value
        if name in _STRUCTS and (unknown := unread(values[name], _STRUCTS[name])):
            raise _unknown(f"{prefix}{written}.{unknown[0]}", unknown[0], _fields(_STRUCTS[name]))
    try:
        return msgspec.convert(values, PentadOptions, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{prefix}*: {error}", param=prefix.rstrip("-_.")) from None


def _object(value: Any, where: str) -> Any:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidRequest(f"{where} is not a JSON object", param=where) from None
    check_free_form(value, where)
    return value


def _from_dynamo(hints: AgentHints | None) -> PentadOptions | None:
    """Hints of NVIDIA Dynamo (`nvext.agent_hints`, 1.5) in our terms; there the higher comes first."""
    if hints is None:
        return None
    ranks = (hints.priority, hints.strict_priority)
    level = (hints.strict_priority or 0) * _TIER + (hints.priority or 0)
    return PentadOptions(
        priority=None if ranks == (None, None) else max(-(2**31), -level),
        hints=FollowUp(next="model" if hints.speculative_prefill else None, output_tokens=hints.osl),
    )


def _completed(options: PentadOptions, other: PentadOptions) -> PentadOptions:
    """The options, with those of `other` where they say nothing; hints one by one."""
    changes = {
        name: value
        for name in _NAMES
        if getattr(options, name) in (None, False) and (value := getattr(other, name)) not in (None, False)
    }
    if options.hints is not None and other.hints is not None:
        silent = {
            name: getattr(other.hints, name)
            for name in _fields(FollowUp)
            if getattr(options.hints, name) is None
        }
        changes["hints"] = msgspec.structs.replace(options.hints, **silent)
    return msgspec.structs.replace(options, **changes) if changes else options


def _check_graph(options: PentadOptions) -> None:
    """Refuses a node that the graph does not have, and a graph in which a step waits for itself."""
    graph = options.graph
    if not graph:
        return
    names = dict.fromkeys([*graph, *(name for waits_for in graph.values() for name in waits_for)])
    if options.node is not None and options.node not in names:
        raise InvalidRequest(
            f"node is {options.node[:64]!r}, which is no step of graph",
            hint=near(options.node, names),
            param="node",
        )
    left = {name: set(waits_for) for name, waits_for in graph.items()}
    while left:
        free = [name for name, waits_for in left.items() if not waits_for & left.keys()]
        if not free:
            raise InvalidRequest(
                f"graph goes in a circle: {', '.join(list(left)[:8])} wait for each other",
                hint="list for each step only those that come before it",
                param="graph",
            )
        for name in free:
            del left[name]


def _fields(kind: type[msgspec.Struct] | None) -> tuple[str, ...]:
    return () if kind is None else tuple(field.name for field in msgspec.structs.fields(kind))


def _unknown(where: str, name: str, known: Iterable[str]) -> InvalidRequest:
    return InvalidRequest(f"{where[:120]} is not known", hint=near(name[:64], known), param=where[:120])
