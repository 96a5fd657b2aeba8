"""A real model whose first answers are forced: small models call tools and give out tasks by chance only."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator, Sequence

from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, ToolCallDelta
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.types import Request


class Led(ModelService):
    """Computes every answer, and puts calls of tools in place of the first ones; the usage stays as it is."""

    forced: Sequence[tuple[str, str]]
    """Name and arguments of the calls, in order."""
    asked: list[Request]

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        number = len(self.asked)
        self.asked.append(request)
        async for delta in super().stream(request):
            if number >= len(self.forced):
                yield delta
            elif isinstance(delta, StreamDone):
                name, arguments = self.forced[number]
                yield ToolCallDelta(index=0, id=f"c{number}", name=name, arguments=arguments)
                yield ChoiceDone(reason="tool_calls")
                yield delta


def led(
    path: pathlib.Path,
    forced: Sequence[tuple[str, str]] = (),
    *,
    prefix_cache: bool,
    kv_bytes: int = 384 << 20,
) -> Led:
    """The model of a file in our engine."""
    settings = EngineSettings(kv_bytes=kv_bytes, prefix_cache=prefix_cache)
    models = Led({"model": local_backend(open_model(path), settings)}, router=Fixed())
    models.forced, models.asked = forced, []
    return models
