"""POST /v1/rerank, and /rerank for clients that leave the version out."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.rerank import (
    RerankAnswer,
    RerankDocument,
    RerankRequest,
    RerankResult,
    RerankUsage,
)
from pentad.errors import ModelNotFound


def routes(gateway: Gateway) -> list[Route]:
    """Scores of documents for a query."""
    body = Body(RerankRequest)

    async def rerank(http: HttpRequest) -> Response:
        wire = await body.read(http, gateway.settings)
        model = _reranker(gateway, wire.model)
        texts = [one if isinstance(one, str) else one.text for one in wire.documents]
        made = await gateway.plain(http, gateway.services.models.rerank(model, wire.query, texts))
        best = sorted(range(len(texts)), key=lambda i: -made.scores[i])[: wire.top_n]
        results = [RerankResult(index=i, relevance_score=made.scores[i]) for i in best]
        if wire.return_documents:
            for result in results:
                result.document = RerankDocument(text=texts[result.index])
        tokens = made.usage.prompt_tokens
        return json_response(
            RerankAnswer(
                id=f"rerank-{exchange_of(http).request_id}",
                model=model,
                results=results,
                usage=RerankUsage(prompt_tokens=tokens, total_tokens=tokens),
            )
        )

    return [Route(path, rerank, methods=["POST"]) for path in ("/v1/rerank", "/rerank")]


def _reranker(gateway: Gateway, name: str | None) -> str:
    """The model's own name; the first reranker where none is named. Raises ModelNotFound."""
    served = gateway.services.models.served
    if name is not None:
        served.reranker(name)
        return served.canonical(name)
    if not served.rerankers:
        raise ModelNotFound(
            "no reranker is served here", hint="serve a cross-encoder: --model FOLDER", param="model"
        )
    return next(iter(served.rerankers))
