"""POST /v1/rerank, in the form that Jina's and Cohere's clients speak."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.common import Name, Short
from pentad.application.gateway.schemas.embeddings import MAX_INPUTS


class RerankDocument(Struct, kw_only=True):
    text: str


class RerankRequest(Struct, kw_only=True):
    """A query and the documents that are ordered by what they say about it."""

    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1, max_length=MAX_INPUTS)]
    model: Name | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None
    """How many of the best are told; absent: all."""
    return_documents: bool | None = None
    """Whether their texts come back with them."""
    user: Short | None = None


class RerankResult(Struct, kw_only=True):
    index: int
    """Of the document in the request."""
    relevance_score: float
    document: RerankDocument | UnsetType = UNSET


class RerankUsage(Struct, kw_only=True):
    prompt_tokens: int
    """Of all pairs of query and document."""
    total_tokens: int


class RerankAnswer(Struct, kw_only=True):
    id: str
    model: str
    results: list[RerankResult]
    """The best first; equal scores in the order asked."""
    usage: RerankUsage
    object: Literal["list"] = "list"
