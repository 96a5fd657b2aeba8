"""ModelManagement: what clients may do with the models themselves: load, unload, pull, delete."""

from __future__ import annotations

import asyncio

from pentad.application.gateway.settings import GatewaySettings
from pentad.application.local_adapters import LocalAdapters
from pentad.application.local_models import LocalModels
from pentad.application.services import Services
from pentad.errors import Conflict, Forbidden, InvalidRequest
from pentad.model.served import LATEST
from pentad.model.sources.base import Progress


class ModelManagement:
    """Changes what one server has loaded and serves."""

    def __init__(self, services: Services, settings: GatewaySettings) -> None:
        self._services = services
        several = len(settings.tenant_names()) > 1
        self._allowed = not several if settings.manage_models is None else settings.manage_models
        self._pulling: set[str] = set()
        self._adapters: LocalAdapters | None = None
        if services.local is not None:
            served = services.models.served
            self._adapters = LocalAdapters(services.local, served, settings.adapter_folder)

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
        if name == served.default or not local.in_store(name):
            raise Forbidden(
                f"model {name!r} is the server's default, or its files are not the store's",
                hint="stop serving it and remove it there",
            )
        served.remove(name)
        await local.pool.remove(name)
        await asyncio.to_thread(local.remove, name)

    def copy(self, name: str, further: str, tenant: str) -> None:
        """Serves a model under one more name until the server ends. Raises Forbidden, InvalidRequest."""
        self.check(tenant)
        self._services.models.served.alias(further.removesuffix(LATEST), name)

    def forget(self, name: str, tenant: str) -> bool:
        """Takes away a further name of a model, and nothing else; whether it was one."""
        self.check(tenant)
        return self._services.models.served.forget_alias(name)

    def adapters(self, tenant: str) -> LocalAdapters:
        """What puts adapters to models. Raises Forbidden, InvalidRequest."""
        self.check(tenant)
        self._local()
        assert self._adapters is not None, "there are local models"
        return self._adapters

    def _local(self) -> LocalModels:
        if self._services.local is None:
            raise InvalidRequest(
                "models are not loaded and unloaded by request here",
                hint="take the scaler out of the settings",
            )
        return self._services.local
