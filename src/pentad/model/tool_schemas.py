"""ToolSchemas: what of each tool's schema a grammar follows. No tool can spoil a request."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest
from pentad.model.grammar_checker import Verdict
from pentad.model.schema_repair import bare, lenient
from pentad.model.schemas import GrammarLimits, closed, plain_data, refuse_surrogates
from pentad.types import ToolSpec

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
KEPT = 1_024
"""Schemas remembered; a client offers the same tools in every turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What a grammar follows of one schema."""

    schema: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    """What of it is left unchecked, by path."""
    cpu_s: float = 0.0
    size_bytes: int = 0
    """Memory of the compiled schema, where it was measured."""


class ToolSchemas:
    """Fits tools' schemas to what can be enforced, each by itself. Thread-safe.

    Third parties write these schemas. What of one cannot be followed is left out; what still does not
    compile is followed less closely: without closing objects, then by names and types, then as any object.

    Args:
        limits: what a schema may be.
        check: compiles one schema where it can do no harm.
    """

    def __init__(self, limits: GrammarLimits, check: Callable[[Mapping[str, Any]], Verdict]) -> None:
        self._limits = limits
        self._check = check
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Followed] = OrderedDict()

    def follow(self, tools: Sequence[ToolSpec], cpu_s: float) -> tuple[list[Followed], tuple[str, ...]]:
        """What to follow of each tool, and a sentence for each tool that is not followed whole.

        Args:
            tools: those offered.
            cpu_s: what compiling all of them may take; the costliest are followed as any object beyond.
        """
        found = [self._one(tool.parameters) for tool in tools]
        for i in sorted(range(len(tools)), key=lambda i: -found[i].cpu_s):
            if sum(one.cpu_s for one in found) <= cpu_s:
                break
            found[i] = _unchecked(f"with all tools it takes more than {cpu_s:g} s to compile")
        told = [
            f"tool {tool.name!r} leaves unchecked: {'; '.join(one.notes)}"
            for tool, one in zip(tools, found, strict=True)
            if one.notes
        ]
        return found, tuple(told)

    def _one(self, parameters: Any) -> Followed:
        try:
            # A tool without parameters may come without a schema.
            data = plain_data(parameters or dict(ANY_OBJECT), self._limits, "its schema")
            key = json.dumps(data)
            refuse_surrogates(json.dumps(data, ensure_ascii=False), "its schema")
        except InvalidRequest as error:
            return _unchecked(error.message)
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
        followed = self._fitted(data)
        with self._lock:
            self._known[key] = followed
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return followed

    def _fitted(self, data: dict[str, Any]) -> Followed:
        schema, notes = lenient(data, self._limits)
        kind = schema.get("type", "object")
        if kind != "object" and not (isinstance(kind, list) and "object" in kind):
            return _unchecked(f"its type is {kind!r}, but arguments are an object")
        if "type" in schema or not {"$ref", "anyOf", "oneOf", "allOf"} & schema.keys():
            schema["type"] = "object"
        bared = "all but names and types"
        tries = ((closed(schema), ()), (schema, ()), (closed(bare(schema, self._limits)), (bared,)))
        why = ""
        for candidate, more in tries:
            verdict = self._check(candidate)
            if verdict.possible:
                warned = tuple(" ".join(warning.split())[:200] for warning in verdict.warnings)
                return Followed(
                    schema=candidate,
                    notes=(*notes, *more, *warned),
                    cpu_s=verdict.cpu_s,
                    size_bytes=verdict.size_bytes,
                )
            why = verdict.error or "it allows no arguments"
        return _unchecked(why)


def _unchecked(why: str) -> Followed:
    return Followed(schema=ANY_OBJECT, notes=(f"everything, since {' '.join(why.split())[:200]}",))
