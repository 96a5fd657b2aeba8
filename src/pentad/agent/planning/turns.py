"""The earlier conversation of a run as turns of a prompt."""

from __future__ import annotations

from pentad.agent.planning.base import MessageGroup
from pentad.agent.state import RunState
from pentad.types import Message


def conversation(state: RunState) -> tuple[MessageGroup, ...]:
    """What was said before the goal, a user message and its answers per turn."""
    groups: list[list[Message]] = []
    for message in state.history:
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(message)
    return tuple(MessageGroup(messages=tuple(group)) for group in groups)
