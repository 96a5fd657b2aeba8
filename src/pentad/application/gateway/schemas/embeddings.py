"""POST /v1/embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pentad.application.gateway.schemas.common import Name, Short

MAX_INPUTS = 2048


class EmbeddingRequest(Struct, kw_only=True):
    """Texts to turn into vectors, or their tokens, which are those of the model's own tokenizer."""

    input: (
        Annotated[str, Meta(min_length=1)]
        | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=MAX_INPUTS)]
    )
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    prompt_name: Short | None = None
    """Which of the model's prompts stands in front of every text; absent: its default, if it has one."""
    user: Short | None = None


class EmbeddingItem(Struct, kw_only=True):
    index: int
    embedding: list[float] | str
    """Floats, or the base64 text of little-endian 32-bit floats."""
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Struct, kw_only=True):
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"
