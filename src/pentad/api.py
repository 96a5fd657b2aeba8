"""What programs use of Pentad: agents, tools of functions, what a run says, and programs of prompts.

    from pentad.api import Agent, tool

docs/python.md tells more.
"""

from pentad.agent.events import RunEnded, StepEnded
from pentad.agent.model_events import TextStreamed
from pentad.agent.spec import AgentSpec
from pentad.agent.tool_events import ApprovalAsked, ToolIntended, ToolReturned
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.functions import tool
from pentad.application.library import Agent, Result, RunFailed
from pentad.application.pair_judge import Judgement, judged
from pentad.application.program import Model, Program
from pentad.types import Budget, Message

__all__ = [
    "Agent",
    "AgentSpec",
    "ApprovalAsked",
    "Budget",
    "Judgement",
    "Message",
    "Model",
    "Program",
    "Result",
    "RunEnded",
    "RunFailed",
    "StepEnded",
    "TextStreamed",
    "Tool",
    "ToolContext",
    "ToolIntended",
    "ToolReturned",
    "judged",
    "tool",
]
