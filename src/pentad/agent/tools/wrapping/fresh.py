"""Fresh: results are dated, kept until they expire, and not an instant longer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.tools.base import Dated, Sourced, Tool, ToolContext
from pentad.agent.tools.wrapping.base import WrapperServices, canonical_call, repeatable
from pentad.ranges import in_range
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Keeps the results of tools for some time, and says of each when it was so and until when it holds.

    The same call of the same tenant is answered from what is kept while that is valid; then the tool is
    asked again. A tool that says itself until when its result holds is believed where that is sooner. The
    time counts from before the call, so nothing is kept longer than it may be; nor is anything whose date
    lies ahead of the clock, which was turned back then. A result that came expired is never kept. Tools
    with effects are left alone.

    Source: survey III-D, access to current information; freshness as in RFC 9111, section 4.2.
    """

    tools: tuple[str, ...] = ("*",)
    """Patterns of the tools whose results are kept."""
    ttl_s: float = 60.0
    """How long a result holds, where the tool does not say less."""
    most: int = 1024
    """Results kept; those used longest ago go first."""

    name = "fresh"

    def __post_init__(self) -> None:
        in_range("ttl_s", self.ttl_s, least=0)
        in_range("most", self.most, least=1)

    def open(self, services: WrapperServices) -> Kept:  # noqa: ARG002
        """Keeps nothing yet."""
        return Kept(self)


class Kept:
    """Results with their dates."""

    def __init__(self, options: Fresh) -> None:
        self._options = options
        self._results: OrderedDict[str, Dated] = OrderedDict()

    def wrap(self, tool: Tool) -> Tool:
        """The tool, whose results are dated and kept."""
        if not repeatable(tool, self._options.tools):
            return tool

        async def call(arguments: Mapping[str, Any], context: ToolContext) -> Any:
            key = canonical_call(context.tenant, tool, arguments)
            now_s = context.wall()
            kept = self._results.get(key)
            if kept is not None and kept.as_of_s <= now_s < (kept.expires_s or -math.inf):
                self._results.move_to_end(key)
                return self._again(tool, kept, now_s)
            self._results.pop(key, None)
            made = self._dated(await tool.call(arguments, context), now_s)
            if made.expires_s is not None and made.expires_s > context.wall():
                self._results[key] = made
            while len(self._results) > self._options.most:
                self._results.popitem(last=False)
            return made

        return replace(tool, call=call)

    def close(self) -> None:
        """Forgets all."""
        self._results.clear()

    def _dated(self, result: Any, began_s: float) -> Dated:
        own = result if isinstance(result, Dated) else Dated(content=result, as_of_s=began_s)
        ends = [began_s + self._options.ttl_s]
        ends += [] if own.expires_s is None else [own.expires_s]
        return replace(own, expires_s=min(ends))

    def _again(self, tool: Tool, kept: Dated, now_s: float) -> Sourced:
        age_s, left_s = now_s - kept.as_of_s, (kept.expires_s or now_s) - now_s
        decision = Decision(
            layer="agent",
            policy=Fresh.name,
            subject=f"result of {tool.name}",
            chosen="kept",
            candidates=(("kept", round(left_s, 3)), ("call", 0.0)),
            constraint=f"{age_s:.1f} s old, valid for {left_s:.1f} s more",
        )
        return Sourced(content=kept, source=f"kept, {age_s:.1f} s old", decisions=(decision,))
