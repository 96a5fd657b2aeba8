"""Ollama's API for models: /api/tags, show, ps, version, pull, delete, and `HEAD /`."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

import pentad
from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.errors import error_body
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.ollama import (
    Details,
    OllamaCopyRequest,
    OllamaModelRequest,
    OllamaStatus,
    OllamaVersion,
    Running,
    RunningModels,
    Shown,
    Tag,
    Tags,
)
from pentad.application.gateway.sse import NDJSON_HEADERS
from pentad.application.gateway.translate.ollama_answer import line
from pentad.errors import InvalidRequest, ModelNotFound, PentadError
from pentad.model.cards import ModelCard
from pentad.model.facts import ModelFacts, short_count

API_VERSION: Final = "0.12.6"
"""Of Ollama's API; clients refuse to talk to one that lacks what they need."""
_FOREVER: Final = datetime.timedelta(days=365 * 100)


def routes(gateway: Gateway) -> list[Route]:
    """The models of this server as Ollama's clients list, show, bring and remove them."""
    body, copy_body = Body(OllamaModelRequest), Body(OllamaCopyRequest)
    models = gateway.services.models

    async def alive(_: HttpRequest) -> Response:
        return Response(b"")

    async def version(_: HttpRequest) -> Response:
        return json_response(OllamaVersion(version=API_VERSION, pentad=pentad.__version__))

    async def tags(_: HttpRequest) -> Response:
        return json_response(Tags(models=[Tag(**_tag(gateway, card)) for card in models.models()]))

    async def running(_: HttpRequest) -> Response:
        loaded = [
            card for card in models.models() if models.served.slot(card.name) and card.state == "loaded"
        ]
        return json_response(RunningModels(models=[_running(gateway, card) for card in loaded]))

    async def show(http: HttpRequest) -> Response:
        card = _card(gateway, _named(await body.read(http, gateway.settings)))
        return json_response(_shown(card, _facts(gateway, card.name)))

    async def pull(http: HttpRequest) -> Response:
        wire, exchange = await body.read(http, gateway.settings), exchange_of(http)
        gateway.management.check(exchange.tenant)
        lines = _pulled(gateway, _named(wire))
        if wire.stream is False:
            async for _ in lines:
                pass
            return json_response(OllamaStatus(status="success"))

        def error_line(error: PentadError) -> bytes:
            return error_body(error, "ollama", exchange.request_id) + b"\n"

        return gateway.events(lines, exchange, error_frame=error_line, headers=NDJSON_HEADERS)

    async def copy(http: HttpRequest) -> Response:
        wire = await copy_body.read(http, gateway.settings)
        source = _card(gateway, wire.source).name
        gateway.management.copy(source, wire.destination, exchange_of(http).tenant)
        return Response(b"")

    async def delete(http: HttpRequest) -> Response:
        name = _named(await body.read(http, gateway.settings))
        if gateway.management.forget(name, exchange_of(http).tenant):
            return Response(b"")
        card = _card(gateway, name)
        await gateway.management.remove(card.name, exchange_of(http).tenant)
        return Response(b"")

    return [
        Route("/", alive, methods=["HEAD"], include_in_schema=False),
        Route("/api/version", version, methods=["GET"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/ps", running, methods=["GET"]),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/pull", pull, methods=["POST"]),
        Route("/api/copy", copy, methods=["POST"]),
        Route("/api/delete", delete, methods=["DELETE"]),
    ]


def _named(wire: OllamaModelRequest) -> str:
    name = wire.model or wire.name
    if name is None:
        raise InvalidRequest("no model is named", hint="set model", param="model")
    return name


def _card(gateway: Gateway, name: str) -> ModelCard:
    cards = gateway.services.models.models()
    own = gateway.services.models.served.canonical(name)
    for card in cards:
        if card.name == own:
            return card
    known = ", ".join(card.name for card in cards)
    raise ModelNotFound(f"model {name!r} not found", hint=f"known: {known}", param="model")


def _facts(gateway: Gateway, name: str) -> ModelFacts | None:
    local = gateway.services.local
    return None if local is None else local.facts.get(name)


def _tag(gateway: Gateway, card: ModelCard) -> dict[str, Any]:
    facts = _facts(gateway, card.name)
    changed_s = card.created_s if facts is None else facts.modified_s
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": _instant(changed_s),
        "size": 0 if facts is None else facts.stored.size_bytes,
        "digest": (facts.stored.sha256 if facts is not None else None) or "",
        "details": _details(facts),
    }


def _details(facts: ModelFacts | None) -> Details:
    if facts is None:
        return Details(format="", family="", families=[], parameter_size="", quantization_level="")
    return Details(
        format=facts.stored.format,
        family=facts.spec.family,
        families=[facts.spec.family],
        parameter_size=short_count(facts.spec.parameters),
        quantization_level=facts.quantization,
    )


def _running(gateway: Gateway, card: ModelCard) -> Running:
    slot = gateway.services.models.served.slot(card.name)
    assert slot is not None, "it is a model of the pool"
    now = datetime.datetime.now(datetime.UTC)
    left = _FOREVER if slot.keep_s is None else datetime.timedelta(seconds=slot.left_s())
    tag = _tag(gateway, card) | {"size": slot.need.total_bytes}
    return Running(**tag, expires_at=_text(now + left), size_vram=0, context_length=card.context_length or 0)


def _shown(card: ModelCard, facts: ModelFacts | None) -> Shown:
    can = {"generate": ["completion"], "embed": ["embedding"]}.get(card.kind, [])
    if card.capabilities is not None:
        can += ["tools"] if card.capabilities.tools else []
        can += ["vision"] if "image" in card.capabilities.media else []
    info: dict[str, Any] = {"general.basename": card.name}
    if facts is not None:
        can += ["thinking"] if facts.reasons else []
        spec, family = facts.spec, facts.spec.family
        info |= {
            "general.architecture": family,
            "general.parameter_count": spec.parameters,
            f"{family}.context_length": spec.context_length,
            f"{family}.embedding_length": spec.width,
            f"{family}.block_count": spec.layers,
        }
    drawn = {} if facts is None else facts.sampling
    shown = Shown(
        modelfile=f"FROM {card.name}\n",
        parameters="\n".join(f"{name} {value:g}" for name, value in drawn.items()),
        template=(facts.template if facts is not None else None) or "",
        details=_details(facts),
        model_info=info,
        capabilities=can,
        modified_at=_instant(card.created_s if facts is None else facts.modified_s),
    )
    if facts is not None and facts.stored.licence is not None:
        shown.license = facts.stored.licence
    return shown


async def _pulled(gateway: Gateway, ref: str) -> AsyncGenerator[bytes, None]:
    """The lines of one pull; the model is served from its last line on."""
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def progress(done: int, total: int | None) -> None:
        loop.call_soon_threadsafe(steps.put_nowait, (done, total or done))

    task = asyncio.ensure_future(gateway.management.pull(ref, progress))
    task.add_done_callback(lambda _: steps.put_nowait(None))
    yield line(OllamaStatus(status="pulling manifest"))
    try:
        while (step := await steps.get()) is not None:
            while not steps.empty() and (newer := steps.get_nowait()) is not None:
                step = newer  # of many steps the latest is enough
            done, total = step
            yield line(OllamaStatus(status=f"pulling {ref}", digest=ref, total=total, completed=done))
            if task.done():
                break
        await task
    finally:
        task.cancel()
    yield line(OllamaStatus(status="success"))


def _instant(unix_s: float) -> str:
    return _text(datetime.datetime.fromtimestamp(unix_s, datetime.UTC))


def _text(moment: datetime.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
