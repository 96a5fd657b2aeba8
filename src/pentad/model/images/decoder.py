"""ImageDecoder: foreign bytes to pixels, in processes that end with their time or memory."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pentad.content import Media
from pentad.errors import Incompatible, InvalidRequest
from pentad.model.guarded import GuardedProcesses
from pentad.model.images.tiles import TilePlan

_WORKER = pathlib.Path(__file__).with_name("worker.py")
FORMATS = frozenset({"image/png", "image/jpeg", "image/webp"})
"""Media types that are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one image may take."""

    pixels: int = 40_000_000
    memory_bytes: int = 640 << 20
    """On top of what a process has at its start; an image of that many pixels takes some 300 MB."""
    cpu_s: float = 8.0
    wall_s: float = 60.0
    """A busy machine may stretch it this far."""


class ImageDecoder:
    """Decodes images of foreign origin; what is not one of the formats is never tried.

    Args:
        limits: of one image.
        processes: how many are decoded at a time; others wait.

    Raises:
        Incompatible: Pillow is not installed.
    """

    def __init__(self, limits: ImageLimits | None = None, processes: int = 2) -> None:
        if importlib.util.find_spec("PIL") is None:
            raise Incompatible(
                "images are decoded by Pillow, which is not installed",
                hint="install it: pip install 'pentad[images]'",
                param="messages",
            )
        self._limits = limits = limits or ImageLimits()
        arguments = (str(limits.cpu_s), str(limits.memory_bytes), str(limits.pixels))
        self._processes = GuardedProcesses(str(_WORKER), arguments, processes)

    def size(self, part: Media) -> tuple[int, int]:
        """Width and height as it is to be looked at; reads the head alone. Raises InvalidRequest."""
        head, _ = self._ask(part, {"op": "size"})
        return head["width"], head["height"]

    def tiles(self, part: Media, plan: TilePlan) -> npt.NDArray[np.uint8]:
        """[N, S, S, 3] its tiles. Raises InvalidRequest for an image that is broken or takes too much."""
        job = {
            "op": "tiles",
            "sizes": plan.sizes,
            "filter": plan.resampling,
            "boxes": plan.boxes,
            "whole": plan.whole,
        }
        _, pixels = self._ask(part, job)
        return np.frombuffer(bytearray(pixels), np.uint8).reshape(plan.count, plan.tile, plan.tile, 3)

    def close(self) -> None:
        """Ends the processes. A later image starts new ones."""
        self._processes.close()

    def _ask(self, part: Media, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if part.media_type not in FORMATS:
            raise InvalidRequest(
                f"the {part.told} is of a format that is not decoded here",
                hint=f"send it as one of: {', '.join(sorted(FORMATS))}",
                param="messages",
            )
        found = self._processes.ask(job, self._limits.wall_s, part.data)
        if found is None:
            limits = self._limits
            raise InvalidRequest(
                f"decoding the {part.told} takes more than {limits.cpu_s:g} s "
                f"or {limits.memory_bytes >> 20} MiB",
                hint="send it smaller, as a plain PNG or JPEG",
                param="messages",
            )
        if "error" in found[0]:
            raise InvalidRequest(
                f"the {part.told} cannot be decoded: {found[0]['error']}",
                hint="send a sound image, or one that is smaller",
                param="messages",
            )
        return found


@functools.cache
def shared_decoder() -> ImageDecoder:
    """The decoder of this process: one for all models, so that its bound holds for them together."""
    decoder = ImageDecoder()
    atexit.register(decoder.close)
    return decoder
