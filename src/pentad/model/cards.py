"""What the model service tells of a served model, and what embedding gives."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.execution.backend import Capabilities
from pentad.types import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What clients are told about one served model."""

    name: str
    created_s: int
    """Unix time at which this service began to serve it."""
    kind: str
    """`generate`, `embed`, `rerank` or `transcribe`."""
    context_length: int | None = None
    capabilities: Capabilities | None = None
    """Set for models that generate."""
    dimensions: int | None = None
    """Set for models that embed."""
    prompts: tuple[str, ...] = ()
    """Names of what may stand in front of texts that are embedded."""
    state: str = "loaded"
    """`loaded`, or where a local model is on its way: see `resource.model_slot`."""
    aliases: tuple[str, ...] = ()
    """Further names that it answers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of several texts, in the order asked."""

    vectors: list[list[float]]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of several documents, in the order asked; higher ones are better."""

    scores: list[float]
    usage: Usage
