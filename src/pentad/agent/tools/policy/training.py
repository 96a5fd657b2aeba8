"""Training of the retriever of the tool policy `learned` from solved calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pentad.agent.example_lines import solved_calls
from pentad.agent.tools.base import Tool
from pentad.agent.tools.policy.retrieve import tool_text
from pentad.errors import InvalidRequest
from pentad.model.relevance import Relevance
from pentad.model.relevance_head import RelevanceHead
from pentad.model.relevance_training import Tell, nearest_share, train_head

_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRetriever:
    """A head, and how it does on what it was trained on."""

    head: RelevanceHead
    tools: int
    """That it was trained among."""
    first_before: float
    """Share, 0 to 1, of the requests whose tool was the nearest before."""
    first_after: float
    """The same after. Of requests that it learned from: others are found less often."""


async def trained(
    file: str,
    tools: Mapping[str, Tool],
    relevance: Relevance,
    *,
    steps: int,
    seed: int,
    tell: Tell | None = None,
) -> TrainedRetriever:
    """The head that these solved calls make. A request that called several tools counts once for each.

    Raises:
        InvalidRequest: the file is not as it should be, or calls a tool that there is not.
        Incompatible: no encoder is served.
    """
    names = list(tools)
    pairs = [(one.request, name) for one in solved_calls(file, "CALLS") for name in sorted(one.tools)]
    unknown = sorted({name for _, name in pairs} - set(names))
    if unknown:
        raise InvalidRequest(
            f"solved calls {file!r} call {unknown[0]!r}, which is no tool of the agent",
            hint=f"its tools begin with: {', '.join(names[:_NAMED]) or 'none'}",
            param="CALLS",
        )
    if not pairs:
        raise InvalidRequest(
            f"solved calls {file!r} are none",
            hint="give requests with the calls that served them",
            param="CALLS",
        )
    texts = [tool_text(tool) for tool in tools.values()]
    questions, right = [asked for asked, _ in pairs], [names.index(name) for _, name in pairs]
    lessons = await relevance.lessons(questions, texts, right)

    def work() -> RelevanceHead:
        return train_head(lessons, encoder=relevance.encoder, steps=steps, seed=seed, tell=tell)

    head = await asyncio.to_thread(work)
    return TrainedRetriever(
        head=head,
        tools=len(names),
        first_before=nearest_share(lessons),
        first_after=nearest_share(lessons, head),
    )
