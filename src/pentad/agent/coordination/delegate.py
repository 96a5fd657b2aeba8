"""delegate: the action that gives a task to a member of the team and returns the member's answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pentad.agent.coordination.base import DELEGATE, Assignment
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Example, Tool, ToolContext
from pentad.errors import ToolFailed
from pentad.types import ToolCall


def delegate_action(members: Mapping[str, AgentSpec]) -> Tool:
    """The action, with the members and what each is good for in its description.

    A call that is made again joins the sub-run that it began, so it counts as one that may be
    repeated; what the member itself may change, its own agent and planner decide.
    """
    listed = "; ".join(
        f"{name}: {spec.description}" if spec.description else name for name, spec in members.items()
    )
    names = [*members] or [""]
    return Tool(
        name=DELEGATE,
        description=f"Gives a task to a member of the team and returns its answer. Members: {listed}.",
        parameters={
            "type": "object",
            "properties": {"member": {"enum": [*members]}, "task": {"type": "string", "minLength": 1}},
            "required": ["member", "task"],
            "additionalProperties": False,
        },
        call=_call,
        effects="none",
        timeout_s=math.inf,
        # The task is passed on word for word; numbers and dates tell when a small model copies an example.
        examples=(_example(names[0], "what is 23 times 19"), _example(names[-1], "which day is 2021-03-04")),
    )


def _example(member: str, task: str) -> Example:
    return Example(task=task, arguments={"member": member, "task": task})


def as_call(number: int, step: int, given: Assignment) -> ToolCall:
    """The call that carries out a task which the coordinator itself gave out."""
    arguments = json.dumps({"member": given.member, "task": given.task})
    return ToolCall(id=f"{given.ident}-{step}-{number}", name=DELEGATE, arguments=arguments)


async def _call(arguments: Mapping[str, Any], context: ToolContext) -> str:
    if context.delegate is None:
        raise ToolFailed("this agent leads no team")
    answer = await context.delegate(arguments["member"], arguments["task"])
    if answer.status != "answered":
        found = f" It had: {answer.text}" if answer.text else ""
        raise ToolFailed(
            f"{arguments['member']} did not answer ({answer.status}): {answer.error or 'no reason'}.{found}"
        )
    return answer.text
