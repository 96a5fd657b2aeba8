"""Ledger: all sequences that a driver has given to workers, and what came out of them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from pentad.errors import PentadError
from pentad.execution.consumer import Consumer
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.worker.entries import MOST_DEATHS, Entry
from pentad.execution.worker.messages import Generate, Tokens, outputs_of

Items = list[tuple[Consumer, StepOutput | PentadError]]


class Ledger:
    """Entries by number. Not thread-safe: its owner has a lock."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._ids: dict[int, str] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def number(self) -> int:
        """One that was never used."""
        return next(self._numbers)

    def add(self, requests: Sequence[TokenRequest], consumer: Consumer, now_s: float) -> Generate:
        """Takes requests that came together; the message that gives them to a worker."""
        numbers = [self.number() for _ in requests]
        for number, request in zip(numbers, requests, strict=True):
            assert request.constraint is None, "a constraint does not travel; its guide does"
            assert request.watcher is None, "a watcher does not travel; its guide does"
            self._entries[number] = Entry(number, numbers[0], request, consumer, arrived_s=now_s)
            self._ids[number] = request.id
        return Generate(numbers[0], tuple(requests))

    def forget(self, numbers: Collection[int]) -> list[Entry]:
        """Takes entries out, as far as they are there."""
        found = [self._entries.pop(number) for number in numbers if number in self._entries]
        for entry in found:
            del self._ids[entry.number]
        return found

    def of(self, consumers: Collection[Consumer]) -> list[int]:
        """Numbers of what these consumers wait for."""
        return [number for number, entry in self._entries.items() if entry.consumer in consumers]

    def all(self) -> list[int]:
        """Every number that is not ended."""
        return list(self._entries)

    def consumers(self, numbers: Collection[int]) -> list[Consumer]:
        """Who waits for these, each once."""
        return list(dict.fromkeys(self._entries[n].consumer for n in numbers if n in self._entries))

    def take(self, message: Tokens, now_s: float) -> Items:
        """Notes what a step did; the outputs for the consumers. Raises ValueError for a torn message."""
        items: Items = []
        for number, output in outputs_of(message, self._ids):
            entry = self._entries[number]
            items.append((entry.consumer, entry.take(output, now_s)))
            if output.stats is not None:
                self.forget((number,))
        return items

    def died(self) -> list[int]:
        """Notes that the worker of all these died; numbers of those that saw too many die."""
        for entry in self._entries.values():
            entry.deaths += 1
        return [number for number, entry in self._entries.items() if entry.deaths >= MOST_DEATHS]

    def rest(self) -> list[Generate]:
        """What gives a new worker all that is unfinished. Choices without a token yet stay together."""
        messages: list[Generate] = []
        for _, entries in itertools.groupby(self._entries.values(), key=lambda entry: entry.group):
            fresh: list[Entry] = []
            for entry in entries:
                if not entry.drawn and (not fresh or fresh[-1].number + 1 == entry.number):
                    fresh.append(entry)
                else:
                    messages.append(Generate(entry.number, (entry.rest(),)))
            if fresh:
                messages.append(Generate(fresh[0].number, tuple(entry.rest() for entry in fresh)))
        return messages
