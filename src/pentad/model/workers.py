"""Threads for work on texts: small ones side by side, large ones one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LARGE_CHARS = 64 * 2**10

_large = ThreadPoolExecutor(1, thread_name_prefix="pentad-large-texts")


async def in_thread(work: Callable[..., T], *arguments: object, chars: int, small_inline: bool = False) -> T:
    """The result of `work`, done off the event loop.

    Large texts wait for one another, so that they leave threads, and the interpreter between their
    slices, to all other requests. One whose request has gone while it waited is not begun.

    Args:
        chars: characters of the text that is worked on.
        small_inline: whether small ones take so little that a thread would cost more.
    """
    if chars <= LARGE_CHARS:
        if small_inline:
            return work(*arguments)
        return await asyncio.to_thread(work, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_large, work, *arguments)
