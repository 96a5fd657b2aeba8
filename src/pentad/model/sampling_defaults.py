"""How a model's makers advise to draw from it, for requests that leave that open."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import InvalidRequest
from pentad.model.files.fields import Fields
from pentad.ranges import in_range
from pentad.types import Decision, Sampling

RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "temperature": (0, 2),
        "top_p": (0, 1),
        "top_k": (0, 1 << 30),
        "min_p": (0, 1),
        "repetition_penalty": (0.01, 10),
    }
)
"""Field of Sampling that a model may have a default for, to its least and greatest value."""

OPEN: Final = frozenset(RANGES)
"""The fields of a request that says nothing of how to draw."""

_GGUF_KEYS: Final = MappingProxyType(
    {
        "temperature": "temp",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "penalty_repeat",
    }
)
_log = logging.getLogger(__name__)


def from_generation_config(fields: Fields) -> Mapping[str, float]:
    """The defaults in a `generation_config.json`. What is out of range is logged and left out."""
    return _taken(fields, {name: name for name in RANGES})


def from_gguf(fields: Fields) -> Mapping[str, float]:
    """The defaults under `general.sampling.` of a GGUF file's metadata, as llama.cpp reads them."""
    return _taken(fields.under("general.sampling."), _GGUF_KEYS)


def _taken(fields: Fields, keys: Mapping[str, str]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for name, key in keys.items():
        value: Any = fields.values.get(key)
        if value is None:
            continue
        try:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest(f"{key} is {str(value)[:60]!r}; it must be a number")
            if name == "top_k":  # both -1 and 0 stand for no limit
                value = max(0, int(value))
            least, most = RANGES[name]
            in_range(key, value, least=least, most=most)
        except (InvalidRequest, ValueError, OverflowError) as error:
            _log.warning("%s: a sampling default is left out: %s", fields.source, error)
            continue
        # GGUF keeps 32 bits, so that 0.9 comes out as 0.8999999761581421.
        found[name] = value if isinstance(value, int) else float(f"{value:.6g}")
    return MappingProxyType(found)


def with_defaults(sampling: Sampling, defaults: Mapping[str, float]) -> Sampling:
    """The sampling with the model's value of every field that was left open and has one."""
    taken: dict[str, Any] = {name: value for name, value in defaults.items() if name in sampling.left_open}
    return replace(sampling, **taken) if taken else sampling


def taken_defaults(sampling: Sampling, defaults: Mapping[str, float], at_s: float) -> tuple[Decision, ...]:
    """Which of the model's defaults hold for a request, as a decision; none where none does."""
    taken = ", ".join(f"{name} {value:g}" for name, value in defaults.items() if name in sampling.left_open)
    if not taken:
        return ()
    return (Decision(layer="model", policy="model_defaults", subject="sampling", chosen=taken, at_s=at_s),)
