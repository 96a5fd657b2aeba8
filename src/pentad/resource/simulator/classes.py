"""Service classes in a trace: its items carry what their classes promise, as requests of a server do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pentad.resource.service_classes import ServiceClass, class_named, label_of
from pentad.resource.simulator.trace import TraceItem


def in_classes(
    items: Iterable[TraceItem], classes: Iterable[ServiceClass], *, assigned: Mapping[str, str] | None = None
) -> tuple[TraceItem, ...]:
    """A trace whose items carry what their classes promise; an item without a class stays as it is.

    Args:
        items: with the name of their class in `slo_class`.
        assigned: per item id, a class in the place of its own.

    Raises UnknownName, InvalidRequest.
    """
    known = tuple(classes)
    found = []
    for item in items:
        name = (assigned or {}).get(item.id, item.slo_class)
        if name:
            each = class_named(name, known)
            item = replace(
                item,
                slo_class=name,
                priority=item.priority if each.priority is None else each.priority,
                objective=item.objective or each.objective,
                data_label=label_of(item.data_label, each),
            )
        found.append(item)
    return tuple(found)
