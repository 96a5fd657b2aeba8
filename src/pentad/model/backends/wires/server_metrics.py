"""What a server tells in Prometheus' form, read now and then beside the requests."""

from __future__ import annotations

import asyncio
import math
import re
import time

import httpx2

from pentad.types import Clock

EVERY_S = 10.0
MAX_SAMPLES = 200
"""Of a page; further ones are left out."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\s+(\S+)")


class ServerMetrics:
    """The latest samples of a page, those of one name added up.

    Args:
        url: the page; None: there is none.
        clock: says when to read it again.
    """

    def __init__(self, url: str | None, clock: Clock = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._next_s = -math.inf
        self._task: asyncio.Task[None] | None = None
        self.values: dict[str, float] = {}

    def refresh(self, http: httpx2.AsyncClient) -> None:
        """Begins to read the page if it was not read lately; nobody waits for it."""
        if self._url is None or self._clock() < self._next_s or (self._task and not self._task.done()):
            return
        self._next_s = self._clock() + EVERY_S
        self._task = asyncio.get_running_loop().create_task(self._read(http))

    async def close(self) -> None:
        """Ends a reading that goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, http: httpx2.AsyncClient) -> None:
        assert self._url is not None
        try:
            response = await http.get(self._url)
        except httpx2.HTTPError:
            return  # Whether it answers requests is what counts; the old samples stay.
        if response.status_code == 200:
            self.values = samples(response.text)


def samples(page: str) -> dict[str, float]:
    """Name to value, over all labels, each name as `server_...`."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None or line.startswith("#"):
            continue
        name = f"server_{match[1]}"
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value) and (name in found or len(found) < MAX_SAMPLES):
            found[name] = found.get(name, 0.0) + value
    return found
