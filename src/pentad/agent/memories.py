"""Memories: those that the agents of a process chose, each opened once and shared."""

from __future__ import annotations

import threading

from pentad.agent.memory.base import Memory, MemoryServices, MemoryStrategy
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice, build


class Memories:
    """Opens memories by choice.

    Args:
        services: what they are opened with; None where nothing is remembered at all.
    """

    def __init__(self, services: MemoryServices | None = None) -> None:
        self._services = services
        self._opened: dict[str, Memory] = {}
        self._lock = threading.Lock()

    def of(self, spec: AgentSpec) -> Memory | None:
        """The memory that the agent chose; None where what it needs is not there."""
        return self.get(spec.memory.store)

    def get(self, choice: Choice) -> Memory | None:
        """As `of`. Raises UnknownName, InvalidRequest, and what opening raises."""
        strategy: MemoryStrategy = build("memory", choice)
        if self._services is None or strategy.needs - self._there(self._services):
            return None
        with self._lock:
            key = str(choice)
            if key not in self._opened:
                self._opened[key] = strategy.open(self._services)
            return self._opened[key]

    def close(self) -> None:
        """Closes all."""
        with self._lock:
            for memory in self._opened.values():
                memory.close()
            self._opened.clear()

    @staticmethod
    def _there(services: MemoryServices) -> set[str]:
        there = {"embedder": services.embedder, "file": services.path}
        return {name for name, what in there.items() if what is not None}
