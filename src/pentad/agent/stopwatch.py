"""Stopwatch: notes the time that a block takes as a span."""

from __future__ import annotations

from typing import Protocol

from pentad.types import Clock, Layer, Span


class Notes(Protocol):
    """Who keeps spans until they are journaled."""

    def timed(self, span: Span) -> None: ...


class Stopwatch:
    """A context manager that tells `notes` of its body's time; a class, as a generator costs four calls more.

    A step of a run has some thirty of them.
    """

    __slots__ = ("_clock", "_layer", "_name", "_notes", "_start_s")

    def __init__(self, notes: Notes, clock: Clock, layer: Layer, name: str) -> None:
        self._notes, self._clock, self._layer, self._name = notes, clock, layer, name
        self._start_s = 0.0

    def __enter__(self) -> None:
        self._start_s = self._clock()

    def __exit__(self, *_: object) -> None:
        span = Span(layer=self._layer, name=self._name, start_s=self._start_s, end_s=self._clock())
        self._notes.timed(span)
