"""Settings of the engine that change what models answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.application.config import EngineSettings
from pentad.choice import Choice

LOSSY: Mapping[str, Any] = {
    "kv_dtype": "auto",
    "kv_policy": Choice(name="keep-all"),
    "attention_filter": Choice(name="unfiltered"),
    "weight_dtype": "auto",
}
"""Settings of the engine that change answers, with their usual values."""


def lossy_settings(engine: EngineSettings) -> dict[str, str]:
    """Those of them that are not as usual, as a certificate names them."""
    found = {
        name: str(getattr(engine, name)) for name, usual in LOSSY.items() if getattr(engine, name) != usual
    }
    if found.get("weight_dtype") == "float32":
        del found["weight_dtype"]  # what is exact needs no certificate
    return found
