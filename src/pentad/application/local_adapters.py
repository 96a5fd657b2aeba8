"""LocalAdapters: low-rank adapters that are put to local models and taken away while these are served."""

from __future__ import annotations

import asyncio
import logging
import pathlib
from typing import Final

from pentad.application.local_models import LocalModels
from pentad.errors import Conflict, Forbidden, Incompatible, InvalidRequest, ModelNotFound
from pentad.model.adapters import adapter_bytes
from pentad.model.backends.engine import EngineBackend
from pentad.model.backends.pooled import AdaptedBackend, PooledBackend
from pentad.model.served import ServedModels

_log = logging.getLogger(__name__)
_LOOK_S: Final = 0.02


class LocalAdapters:
    """Adapters by the name that they are served under. Used from one event loop.

    Args:
        local: the models that they belong to.
        served: where they are offered.
        folder: only what lies in it is read; None: nothing is.
    """

    def __init__(self, local: LocalModels, served: ServedModels, folder: str | None) -> None:
        self._local = local
        self._served = served
        self._folder = None if folder is None else pathlib.Path(folder).expanduser().resolve()
        self._lock = asyncio.Lock()

    async def put(self, name: str, path: str, *, base: str | None, again: bool = False) -> None:
        """Serves the adapter at a path under a name from now on; loads its base if need be.

        Args:
            base: the model that it is for; None: the server's default.
            again: whether it may take the place of one of that name, whose requests end first.

        Raises:
            Conflict: the name is taken.
            Forbidden: the path lies outside of the folder for adapters, or there is none.
            ModelNotFound: no such base.
            BadModelFile, Incompatible, Infeasible: it cannot be read, computed or held.
        """
        async with self._lock:
            old = self._served.backends.get(name)
            if name in self._served and not (again and isinstance(old, AdaptedBackend)):
                raise Conflict(
                    f"the name {name!r} is taken",
                    hint="unload that adapter first, or set load_inplace",
                    param="lora_name",
                )
            file = self._allowed(path)
            size = await asyncio.to_thread(adapter_bytes, file)
            of = self._base(base)
            self._local.pool.grow(of.slot, size)
            try:
                async with of.slot.lease() as backend:
                    desk = backend.adapters if isinstance(backend, EngineBackend) else None
                    if desk is None:
                        raise Incompatible(f"model {of.slot.name!r} is computed by what takes no adapters")
                    key = await asyncio.to_thread(desk.put, name, str(file))
            except BaseException:
                self._local.pool.grow(of.slot, -size)
                raise
            if isinstance(old, AdaptedBackend) and old.key == key and old.slot is of.slot:
                self._local.pool.grow(of.slot, -size)  # the same file again
                return
            if isinstance(old, AdaptedBackend):
                await self._retire(name, old)
            self._local.adapters[of.slot.name][name] = str(file)
            self._served.add(name, AdaptedBackend(key, of, name=name, size_bytes=size))
            _log.info("adapter %s of model %s is served", name, of.slot.name)

    async def drop(self, name: str) -> None:
        """Serves an adapter no more; its requests end first. Raises ModelNotFound."""
        async with self._lock:
            found = self._served.backends.get(name)
            if not isinstance(found, AdaptedBackend):
                raise ModelNotFound(f"no adapter {name!r} here", param="lora_name")
            await self._retire(name, found)
            _log.info("adapter %s of model %s is dropped", name, found.slot.name)

    async def _retire(self, name: str, adapted: AdaptedBackend) -> None:
        """Takes it off the list, then out of memory when nobody uses it any more."""
        self._served.remove(name)
        self._local.adapters[adapted.slot.name].pop(name, None)
        while adapted.users:  # noqa: ASYNC110 - its own requests come first
            await asyncio.sleep(_LOOK_S)
        loaded = adapted.slot.value
        if isinstance(loaded, EngineBackend) and loaded.adapters is not None:
            await asyncio.to_thread(loaded.adapters.drop, adapted.key)
        self._local.pool.grow(adapted.slot, -adapted.size_bytes)

    def _base(self, name: str | None) -> PooledBackend:
        found = self._served.backend(name or "")
        if isinstance(found, AdaptedBackend) or not isinstance(found, PooledBackend):
            raise InvalidRequest(
                f"model {name or self._served.default!r} takes no adapters: it is no model of this machine",
                hint="name one in base_model_name",
                param="base_model_name",
            )
        return found

    def _allowed(self, path: str) -> pathlib.Path:
        if self._folder is None:
            raise Forbidden(
                "this server reads no adapters for its clients",
                hint="ask the operator, who can set server.adapter_folder",
            )
        file = (self._folder / path).resolve()
        if not file.is_relative_to(self._folder):
            raise Forbidden(
                f"{path!r} is not in the folder for adapters", hint="give a path within server.adapter_folder"
            )
        return file
