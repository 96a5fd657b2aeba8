"""The table of docs/families.md: the registry's families, how they speak, and what was measured of each."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from pentad import registry
from pentad.model.families.base import Family
from pentad.model.speech import FAMILIES, Speech

RECORD = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "family_parity.json"
COLUMNS = (
    "family",
    "architectures",
    "folder",
    "GGUF",
    "native kernels",
    "chat template",
    "tool format",
    "reasoning",
    "parity error",
)
_TEMPLATES = {
    "file": "its own",
    "prompt": "its own; tools go into the system message",
    "none": "none: published models only continue text",
}
_NEVER = "none: it reads and writes nothing"
_UNTOLD = "what the model's own template marks"


def families_table() -> str:
    """Every cell says something, or why there is nothing."""
    measured: dict[str, list[Mapping[str, Any]]] = {}
    for found in json.loads(RECORD.read_text("utf-8")).values():
        measured.setdefault(found["family"], []).append(found)
    rows = [_row(family, names, measured.get(family.name, [])) for family, names in _families()]
    lines = (f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *sorted(rows)))
    return "\n".join(lines) + "\n"


def _families() -> list[tuple[Family, list[str]]]:
    """Those of the registry's table, each with its names there."""
    found: dict[int, tuple[Family, list[str]]] = {}
    for name in registry.TABLE["model_family"]:
        family = registry.load("model_family", name)
        found.setdefault(id(family), (family, []))[1].append(name)
    return list(found.values())


def _row(family: Family, names: list[str], cases: list[Mapping[str, Any]]) -> tuple[str, ...]:
    reads_only = bool(cases) and all(case["of"] == "states" for case in cases)
    speech = next(
        (FAMILIES[name.replace("-", "_")] for name in names if name.replace("-", "_") in FAMILIES), None
    )
    return (
        family.name,
        ", ".join(names),
        "yes" if cases else "yes, measured by no case of the record",
        _gguf(family, cases),
        _native(cases),
        *_speech(speech, reads_only),
        _error(cases),
    )


def _gguf(family: Family, cases: list[Mapping[str, Any]]) -> str:
    if family.describe_gguf is None:
        return "none: " + (_joined(_texts(cases, "gguf")) or "no such file is known")
    held = any(isinstance(case["gguf"], float) for case in cases)
    return "yes" if held else "yes, unmeasured: " + (_joined(_texts(cases, "gguf")) or "no case")


def _native(cases: list[Mapping[str, Any]]) -> str:
    """The worst divergence, and what they lack for some forms."""
    numbers = [case["native"] for case in cases if isinstance(case["native"], float)]
    lacks = _texts(cases, "native")
    unit = "of the cosine" if all(case["of"] == "states" for case in cases) else "nats"
    parts = [f"yes: {max(numbers):.2g} {unit}"] if numbers else []
    return "; ".join([*parts, *(f"no: {text}" for text in lacks)]) or "not measured"


def _speech(speech: Speech | None, reads_only: bool) -> tuple[str, str, str]:
    if reads_only:
        return (_NEVER,) * 3
    if speech is None:
        return "its own, if it has one", _UNTOLD, _UNTOLD
    return _TEMPLATES[speech.template], speech.tools, speech.reasoning


def _error(cases: list[Mapping[str, Any]]) -> str:
    numbers = [case[form] for case in cases for form in ("folder", "gguf") if isinstance(case[form], float)]
    return f"{max(numbers):.1g}" if numbers else "not measured"


def _texts(cases: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(case[key] for case in cases if isinstance(case[key], str)))


def _joined(texts: list[str]) -> str:
    return "; ".join(texts)
