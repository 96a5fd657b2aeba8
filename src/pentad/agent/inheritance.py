"""What a sub-run inherits of the run that leads: the prompt of the call that gave the task, to begin alike.

Its model calls are rendered as that prompt, word for word and with the same tools in front, and behind it
what the sub-agent is, may use and has to do. So the engine's prefix cache holds all but the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.sub_run_events import Inherited
from pentad.types import Request, ToolSpec


def inherited(request: Request | None) -> Inherited | None:
    """What sub-runs take over of a model call; None where there was none, or it shows more than text."""
    if request is None or request.messages is None or any(m.media for m in request.messages):
        return None
    presented = request.shown_tools
    if presented is None:
        presented = request.tools if request.tool_choice.mode != "none" else ()
    return Inherited(messages=request.messages, tools=presented)


def continued(draft: ModelCallDraft, start: Inherited | None, member: str) -> ModelCallDraft:
    """The draft of a sub-agent behind what it inherits.

    Its own system text and its tools stand in front of its first turn, so that nothing changes before it; its
    grammar allows its own tools only. Where the inherited prompt ends with a user's turn it goes on in that
    turn, since templates may refuse two in a row.

    Args:
        draft: as the sub-agent's planner wants it.
        start: what the sub-run inherits; None leaves the draft as it is.
        member: the sub-agent's name.
    """
    if start is None:
        return draft
    first, *rest = draft.turns
    told = "\n\n".join(filter(None, [f"You are now {member}.", draft.system, _told(draft, start.tools)]))
    opening, *others = first.messages
    opening = opening.behind(f"{told}\n\n")
    before = list(start.messages)
    if opening.role == "user" and before and before[-1].role == "user":
        opening = opening.behind(f"{before.pop().content}\n\n")
    own = replace(first, messages=(opening, *others), pinned=True)
    shared = (MessageGroup(messages=tuple(before), pinned=True),) if before else ()
    return replace(draft, system="", turns=(*shared, own, *rest), shown_tools=start.tools)


def _told(draft: ModelCallDraft, shown: Sequence[ToolSpec]) -> str:
    """The tools that may be called now, where they are not those that stand in front."""
    tools = draft.tools if draft.shown_tools is None else draft.shown_tools
    if not draft.tools or tools == tuple(shown):
        return ""
    lines = [
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            ensure_ascii=False,
        )
        for tool in tools
    ]
    return "The tools that you can call now, instead of those above, one per line:\n" + "\n".join(lines)
