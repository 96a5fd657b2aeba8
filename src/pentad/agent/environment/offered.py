"""Offered: functions that are described and do nothing; what counts is how they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Ability, EnvironmentServices, Score, Snapshot, cannot
from pentad.agent.tools.base import Tool, ToolContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """Offers functions by their JSON Schema; each call is taken down and answered with a fixed text.

    Source: our own, for tool-call sets such as the BFCL's, which judge the call and run nothing.
    """

    functions: tuple[Mapping[str, Any], ...] = ()
    """Each with `name`, `description` and `parameters` (JSON Schema of type object)."""

    can: ClassVar[frozenset[Ability]] = frozenset({"reset", "snapshot"})
    name: ClassVar[str] = "offered"

    def check(self) -> None:
        """Nothing has to be given."""

    async def open(self, services: EnvironmentServices) -> Offer:  # noqa: ARG002
        """The functions; a call changes nothing, so nothing has to be remembered."""
        return Offer(self.functions)


class Offer:
    """The functions of one run."""

    def __init__(self, functions: tuple[Mapping[str, Any], ...]) -> None:
        self._tools = {made.name: made for made in map(_offered, functions)}

    def tools(self, own: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The agent's own, and the functions."""
        return {**own, **self._tools}

    def observe(self) -> str:
        """Nothing."""
        return ""

    def reset(self, seed: int) -> None:
        """Nothing changes."""

    def snapshot(self) -> Snapshot:
        """Nothing can change."""
        return {}

    def restore(self, snapshot: Snapshot) -> None:
        """Nothing has changed."""

    def score(self) -> Score:
        """Raises Incompatible: who offers functions knows no right call."""
        raise cannot("offered", "score")


def _offered(function: Mapping[str, Any]) -> Tool:
    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        return f"{function['name']}({json.dumps(arguments)}) was carried out."

    return Tool(
        name=function["name"],
        description=function.get("description", ""),
        parameters=function["parameters"],
        call=call,
        effects="none",
    )
