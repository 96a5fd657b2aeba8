"""ModelManagement: what clients may do with the models themselves: load, unload, pull, delete."""

from __future__ import annotations

import asyncio

from pentad.application.gateway.settings import GatewaySettings
from pentad.application.local_models import LocalModels
from pentad.application.services import Services
from pentad.errors import Conflict, Forbidden, InvalidRequest
from pentad.model.sources.base import Progress


class ModelManagement:
    """Changes what one server has loaded and serves."""

    def __init__(self, services: Services, settings: GatewaySettings) -> None:
        self._services = services
        several = len(settings.tenant_names()) > 1
        self._allowed = not several if settings.manage_models is None else settings.manage_models
        self._pulling: set[str] = set()

    def check(self, tenant: str) -> None:
        """Raises Forbidden where tenants may not change what is there for others too."""
        if not self._allowed:
            raise Forbidden(
                f"tenant {tenant!r} may not load, unload, bring or remove models",
                hint="ask the operator, who can set server.manage_models",
            )

    async def load(self, name: str) -> None:
        """Returns once the model is loaded. Raises what `ModelSlot.lease` does."""
        slot = self._services.models.served.slot(name)
        if slot is not None:
            await self._local().pool.load(slot.name)

    async def unload(self, name: str, tenant: str) -> None:
        """Unloads a model behind its requests. Raises Forbidden, Incompatible."""
        self.check(tenant)
        slot = self._services.models.served.slot(name)
        if slot is None:
            raise InvalidRequest(
                f"model {name!r} is not loaded and unloaded by this server",
                hint="only local models are, where no scaler does it",
                param="model",
            )
        await self._local().pool.unload(slot.name)

    async def pull(self, ref: str, progress: Progress) -> str:
        """Brings a model and serves it. Raises Conflict while it is under way, and what the pull raises."""
        local, served = self._local(), self._services.models.served
        if ref in self._pulling:
            raise Conflict(f"{ref!r} is being pulled already", hint="wait for it to end")
        self._pulling.add(ref)
        try:
            name = await asyncio.to_thread(local.pull, ref, progress)
            if name not in served:
                served.add(name, await asyncio.to_thread(local.add_stored, name))
        finally:
            self._pulling.discard(ref)
        return name

    async def remove(self, name: str, tenant: str) -> None:
        """Serves a model no more, unloads it and deletes its files. Raises Forbidden, InvalidRequest."""
        self.check(tenant)
        local, served = self._local(), self._services.models.served
        if name not in local.facts:
            raise InvalidRequest(f"model {name!r} has no files here", param="model")
        if name == served.default or not local.facts[name].stored.owned:
            raise Forbidden(
                f"model {name!r} is the server's default, or its files are not the store's",
                hint="stop serving it and remove it there",
            )
        served.remove(name)
        await local.pool.remove(name)
        await asyncio.to_thread(local.remove, name)

    def _local(self) -> LocalModels:
        if self._services.local is None:
            raise InvalidRequest(
                "models are not loaded and unloaded by request here",
                hint="take the scaler out of the settings",
            )
        return self._services.local
