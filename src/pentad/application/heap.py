"""The heap of the C library, which keeps what was freed until it is asked for it."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2
"""Heaps of the C library; by default it makes 8 per core, each of which keeps what was freed in it."""


def trim() -> None:
    """Gives the system what the C library has kept; does nothing where it cannot."""
    if (give := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        give(0)


def few_arenas() -> None:
    """Has the C library of this process share few heaps among threads; for the start of a server."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
