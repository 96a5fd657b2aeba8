"""Joins the layers: from settings to the services of one process. The only place that does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from pentad import choice, registry
from pentad.agent.catalogue import catalogue_of
from pentad.agent.journal import Journal
from pentad.agent.limits import RuntimeLimits
from pentad.agent.memories import Memories
from pentad.agent.memory.base import MemoryServices
from pentad.agent.prompt_store import PromptRetention
from pentad.agent.runtime import AgentRuntime
from pentad.application.config import ModelPrice, Settings
from pentad.application.folders import use_data_home, use_home
from pentad.application.journals import journal_store
from pentad.application.local_models import LocalModels, found_models
from pentad.application.phases import check_phases
from pentad.application.remote_backend import remote_backend
from pentad.application.runners import load_engine
from pentad.application.services import Services
from pentad.application.telemetry.telemetry import telemetry_of
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.loop import EngineDriver, EngineLoop
from pentad.execution.worker.interpreters import Starter
from pentad.model.answer_cache import AnswerCache
from pentad.model.audio.transcript import Transcriber
from pentad.model.audio.whisper import WhisperTranscriber
from pentad.model.loading import open_model
from pentad.model.prices import Price
from pentad.model.service import ModelService
from pentad.model.standby import Standby
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.resource import profile
from pentad.resource.energy import machine_meter
from pentad.resource.fair_queue import FairQueue
from pentad.resource.request_energy import RequestEnergy
from pentad.resource.scaling.live import LiveFleet
from pentad.types import Clock

_log = logging.getLogger(__name__)


@asynccontextmanager
async def build(
    settings: Settings, *, clock: Clock = time.monotonic, workers: Starter | None = None
) -> AsyncIterator[Services]:
    """The services that `settings` describe, loaded and ready; closed on leaving.

    Args:
        settings: of everything.
        clock: monotonic.
        workers: start the processes of local engines, where `engine.transport` gives each its own; None:
            all are in this one.

    Raises:
        InvalidRequest: a folder that cannot be written.
        ModelNotFound: a model that is not in the store, with the command that pulls it.
        BadModelFile, Infeasible, Incompatible: a model that cannot be loaded as asked.
        MissingExtra: traces are on without the extra `telemetry`.
    """
    check_phases(settings.engine)
    telemetry = telemetry_of(settings.telemetry, clock=clock)
    store = ModelStore(use_home(settings))
    use_data_home(settings)
    async with AsyncExitStack() as undo:
        if telemetry is not None:
            undo.callback(telemetry.close)
        found = await asyncio.to_thread(found_models, store, settings)
        _check_names(settings, [one.stored.name for one in found])
        _check_adapters(settings, [one.stored.name for one in found])
        fleet = _fleet(settings, store, clock)
        local = LocalModels(store, settings, clock=clock, workers=workers)
        undo.push_async_callback(local.pool.close)
        started = await local.start(found if fleet is None else found[:0])
        backends, vectors = started.backends, started.embedders
        if fleet is not None:
            for one in found:
                scaled = _scaled(fleet, store, one.stored, settings, clock)
                backends[one.stored.name] = await asyncio.to_thread(local.load, one.stored, scaled=scaled)
                undo.push_async_callback(backends[one.stored.name].close)
        for remote in settings.backends:
            backends[remote.name] = remote_backend(remote)
            undo.push_async_callback(backends[remote.name].close)
        models = ModelService(
            backends,
            embedders=vectors,
            rerankers=started.rerankers,
            router=choice.build("router", settings.router),
            turns=_turns(settings, [one.stored.name for one in found], clock),
            prices={p.model: _price(p) for p in settings.prices},
            qualities=_qualities(settings, store, backends),
            aliases=dict(settings.aliases),
            answers=None
            if settings.answer_cache_bytes is None
            else AnswerCache(settings.answer_cache_bytes, clock),
            energy=_energy(settings),
            standbys=_standbys(settings, [one.stored.name for one in found]),
            clock=clock,
        )
        undo.pop_all()
        if telemetry is not None:
            undo.callback(telemetry.close)
        undo.push_async_callback(local.pool.close)
        undo.push_async_callback(models.close)
        if fleet is not None:
            scaling = asyncio.create_task(fleet.run())
            undo.callback(scaling.cancel)
        memory = Memories(
            MemoryServices(path=settings.memory_path, models=models, embedder=next(iter(vectors), None))
        )
        undo.callback(memory.close)
        # Opened now, so that a file that cannot be used ends the start and not some agent's run.
        memory.get(choice.Choice(name=registry.FAMILIES["memory"].baseline))
        journal = Journal(
            journal_store(settings),
            clock=clock,
            retention=PromptRetention(days=settings.prompt_days, labels=settings.prompt_labels),
        )
        if telemetry is not None:
            undo.enter_context(telemetry.following(journal))
        agents = AgentRuntime(
            models,
            journal,
            agents=catalogue_of(settings.agents),
            memory=memory,
            limits=RuntimeLimits(
                max_runs=settings.server.max_runs,
                hold_runs_above=settings.server.hold_runs_above,
                hold_runs_s=settings.server.hold_runs_s,
                tenants=len(settings.server.tenant_names()),
                tenant_share=settings.server.tenant_share,
                approvals_path=settings.approvals_path,
                logins_path=settings.logins_path,
                mcp_commands=frozenset(settings.mcp_commands),
            ),
            tracing=None if telemetry is None else telemetry.tracing,
            clock=clock,
        )
        undo.push_async_callback(agents.close)
        # Looked at before any run is taken up: it may need tools that these files bring.
        await asyncio.to_thread(agents.agents.entries)
        transcribers = _transcribers(settings)
        for transcriber in transcribers.values():
            undo.push_async_callback(transcriber.close)
        yield Services(
            models=models,
            agents=agents,
            local=local if fleet is None else None,
            transcribers=transcribers,
            telemetry=telemetry,
            clock=clock,
        )


def _transcribers(settings: Settings) -> dict[str, Transcriber]:
    """The model for sounds, if there is one. Raises Incompatible, BadModelFile."""
    if settings.transcription_model is None:
        return {}
    folder = settings.transcription_model.expanduser()
    return {folder.name: WhisperTranscriber(folder, threads=settings.engine.threads)}


def _fleet(settings: Settings, store: ModelStore, clock: Clock) -> LiveFleet | None:
    """Who loads and unloads the local models; None where nobody does. Raises Incompatible."""
    if settings.scaler is None:
        return None
    if settings.engine.backend != "engine":
        raise Incompatible(
            f"a scaler loads and unloads Pentad's own engine, not {settings.engine.backend}",
            hint="set --backend engine, or take the scaler out",
            param="scaler",
        )
    if settings.memory_bytes is not None:
        raise Incompatible(
            "a scaler loads and unloads models by their load, and keeps no memory_bytes",
            hint="take --memory out, or the scaler: without one models stay within it",
            param="memory_bytes",
        )
    scaler = choice.build("scaler", settings.scaler)
    qualities = {name: entry.quality for name, entry in store.catalogue.items()}
    return LiveFleet(scaler, slots=settings.engine.max_sequences, clock=clock, qualities=qualities)


def _scaled(
    fleet: LiveFleet | None, store: ModelStore, stored: StoredModel, settings: Settings, clock: Clock
) -> Callable[[int, EngineDriver], EngineDriver] | None:
    """What puts a model's engine under the fleet's scaler."""
    if fleet is None:
        return None
    return partial(fleet.add, stored.name, partial(_reload, store, stored, settings, clock))


def _reload(store: ModelStore, stored: StoredModel, settings: Settings, clock: Clock) -> EngineDriver:
    """A model's engine once more, from its files."""
    drafts = [store.resolve(draft) for draft in settings.engine.draft_models]
    files = store.open(stored)
    opened = [open_model(draft.path, name=draft.name) for draft in drafts]
    engine = load_engine(files, settings.engine, opened, packed_folder=settings.packed_folder, clock=clock)
    files.close()
    return EngineLoop(engine)


def _check_names(settings: Settings, local: Sequence[str]) -> None:
    """Refuses models that would take each other's place; a remote one would carry prompts away unnoticed.

    Raises InvalidRequest naming the entry to change.
    """
    for name in local:
        if local.count(name) > 1:
            raise InvalidRequest(
                f"two of `models` are called {name!r}", hint="name each model once", param="models"
            )
    for backend in settings.backends:
        if backend.name in local:
            raise InvalidRequest(
                f"the remote backend {backend.name!r} has a local model's name and would get its prompts",
                hint="give it another name in `backends`, or take the model out of `models`",
                param="backends",
            )
    served = {*local, *(backend.name for backend in settings.backends)}
    for price in settings.prices:
        if price.model not in served:
            raise InvalidRequest(
                f"`prices` has an entry for {price.model!r}, which is not served",
                hint=f"served are: {', '.join(sorted(served))}",
                param="prices",
            )


def _energy(settings: Settings) -> RequestEnergy:
    """Meters requests by this machine's counters, or by the power that its profile gives."""
    known = None
    if settings.profile_path.exists():
        try:
            known = profile.load(settings.profile_path)
        except InvalidRequest as error:
            _log.warning("energy is told without this machine's profile: %s", error.message)
    return RequestEnergy(machine_meter(known))


def _turns(settings: Settings, local: Sequence[str], clock: Clock) -> dict[str, FairQueue]:
    """Tenants take turns at each engine, where there are several."""
    tenants = frozenset(settings.server.tenant_names())
    if len(tenants) < 2:
        return {}
    most, contended = settings.engine.max_sequences, settings.engine.tenant_sequences
    return {name: FairQueue(tenants, sequences=most, contended=contended, clock=clock) for name in local}


def _qualities(settings: Settings, store: ModelStore, served: Iterable[str]) -> dict[str, float]:
    """What is said of the quality of served models: by the settings of remote ones, else by the catalogue."""
    known = {name: store.catalogue[name].quality for name in served if name in store.catalogue}
    return known | {b.name: b.quality for b in settings.backends if b.quality is not None}


def _standbys(settings: Settings, local: Sequence[str]) -> dict[str, Standby]:
    """Who answers where a remote model fails. Raises InvalidRequest for one that is not local."""
    found = {}
    for backend in settings.backends:
        if backend.standby is None:
            continue
        if backend.standby not in local:
            raise InvalidRequest(
                f"the standby {backend.standby!r} of backend {backend.name!r} is no local model",
                hint=f"name one of `models`: {', '.join(local) or 'none is served'}",
                param="backends",
            )
        found[backend.name] = Standby(
            model=backend.standby, after_s=backend.standby_after_s, again_s=backend.standby_again_s
        )
    return found


def _check_adapters(settings: Settings, local: Sequence[str]) -> None:
    """Raises InvalidRequest for an adapter of no model."""
    for name in settings.engine.adapters:
        base, colon, own = name.partition(":")
        if base not in local or not colon or not own:
            raise InvalidRequest(
                f"the adapter {name!r} belongs to no model that is served",
                hint=f"call it BASE:NAME, with BASE one of: {', '.join(local)}",
                param="engine.adapters",
            )


def _price(setting: ModelPrice) -> Price:
    return Price(prompt=setting.prompt, completion=setting.completion, cached=setting.cached)
