"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM's clients know them."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pentad.application.gateway.body import Body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.operations import AdapterLoad, AdapterUnload


def routes(gateway: Gateway) -> list[Route]:
    """Adapters that come and go while their base is served."""
    load_body, unload_body = Body(AdapterLoad), Body(AdapterUnload)

    async def load(http: HttpRequest) -> Response:
        wire = await load_body.read(http, gateway.settings)
        adapters = gateway.management.adapters(exchange_of(http).tenant)
        base, again = wire.base_model_name, wire.load_inplace
        await adapters.put(wire.lora_name, wire.lora_path, base=base, again=again)
        return PlainTextResponse(f"Success: LoRA adapter '{wire.lora_name}' added successfully.")

    async def unload(http: HttpRequest) -> Response:
        wire = await unload_body.read(http, gateway.settings)
        await gateway.management.adapters(exchange_of(http).tenant).drop(wire.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{wire.lora_name}' removed successfully.")

    return [
        Route("/v1/load_lora_adapter", load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
    ]
