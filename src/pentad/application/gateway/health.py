"""Health that a token proves: each local model made one lately, or makes one now."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from pentad.application.gateway.exchange import new_id
from pentad.application.gateway.metering import Pulse
from pentad.application.services import Services
from pentad.errors import PentadError
from pentad.execution.backend import StreamDone
from pentad.types import Request, Sampling

logger = logging.getLogger("pentad.gateway")
_FIRST = -(2**31)
"""Priority of the probe: a full queue must not make a working engine look dead."""


class Health:
    """Answers "does it work?" from produced tokens, never from a mere running process.

    Models elsewhere are not probed, since that may cost money; their backend's own check counts.

    Args:
        services: whose models to look at.
        pulse: when they last produced a token.
        window_s: how fresh a token must be.
        probe_s: how long a probe may take.
    """

    def __init__(self, services: Services, pulse: Pulse, *, window_s: float, probe_s: float) -> None:
        self._services = services
        self._pulse = pulse
        self._window_s = window_s
        self._probe_s = probe_s
        self._probes: dict[str, asyncio.Task[str | None]] = {}

    async def trouble(self) -> str | None:
        """None when every model works, else the first reason."""
        reported = self._services.models.check() or await self._services.trouble()
        if reported is not None:
            return reported
        silent = [name for name in self._local() if not self._fresh(name)]
        found = await asyncio.gather(*(self._probed(name) for name in silent))
        return next((reason for reason in found if reason is not None), None)

    def _local(self) -> list[str]:
        return [
            card.name
            for card in self._services.models.models()
            if card.capabilities is not None and not card.capabilities.remote and card.state == "loaded"
        ]

    def _fresh(self, name: str) -> bool:
        last_s = self._pulse.last_s.get(name)
        return last_s is not None and self._services.clock() - last_s <= self._window_s

    async def _probed(self, name: str) -> str | None:
        """One probe per model at a time, however many ask."""
        task = self._probes.get(name)
        if task is None:
            task = self._probes[name] = asyncio.create_task(self._probe(name))
            task.add_done_callback(lambda _: self._probes.pop(name, None))
        return await asyncio.shield(task)

    async def _probe(self, name: str) -> str | None:
        request = Request(
            id=new_id("health"),
            model=name,
            text="Hello",
            sampling=Sampling(max_tokens=1, temperature=0),
            tenant="health",
            priority=_FIRST,
        )
        try:
            async with (
                asyncio.timeout(self._probe_s),
                aclosing(self._services.models.stream(request)) as deltas,
            ):
                async for delta in deltas:
                    if isinstance(delta, StreamDone):
                        self._pulse.last_s[name] = self._services.clock()
                        return None
        except TimeoutError:
            return f"model {name!r} produced no token within {self._probe_s:g} s"
        except PentadError as error:
            return f"model {name!r}: {error}"
        except Exception:
            logger.exception("the health probe of model %r failed", name)
            return f"model {name!r} failed; the log has the cause"
        return f"model {name!r} ended without an answer"
