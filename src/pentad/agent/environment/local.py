"""Local: the tools act where they are, in the real world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.environment.base import Ability, EnvironmentServices, Score, Snapshot, cannot
from pentad.agent.tools.base import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Leaves the agent's tools as they are: what they do is done, and nothing takes it back.

    Cost: none.
    """

    can: ClassVar[frozenset[Ability]] = frozenset()
    name: ClassVar[str] = "local"

    def check(self) -> None:
        """Nothing has to be given."""

    async def open(self, services: EnvironmentServices) -> RealWorld:  # noqa: ARG002
        """The real world."""
        return RealWorld()


class RealWorld:
    """The world as it is; it can neither be reset nor judged from here."""

    def tools(self, own: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The tools as they are."""
        return own

    def observe(self) -> str:
        """Nothing: only tools look at the world."""
        return ""

    def reset(self, seed: int) -> None:  # noqa: ARG002
        """Raises Incompatible."""
        raise cannot("local", "reset")

    def snapshot(self) -> Snapshot:
        """Raises Incompatible."""
        raise cannot("local", "snapshot")

    def restore(self, snapshot: Snapshot) -> None:  # noqa: ARG002
        """Raises Incompatible."""
        raise cannot("local", "snapshot")

    def score(self) -> Score:
        """Raises Incompatible."""
        raise cannot("local", "score")
