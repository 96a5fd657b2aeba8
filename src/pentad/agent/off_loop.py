"""Work that may take a while, kept off the event loop; what is short is done at once: a thread costs more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SHORT_CHARS = 8 * 2**10
"""Of a text; rendering or counting it takes a millisecond or two at most."""


async def off_loop(work: Callable[[], T], *, chars: int) -> T:
    """What `work` gives, from a thread where the text that it works on is long."""
    return work() if chars <= SHORT_CHARS else await asyncio.to_thread(work)
