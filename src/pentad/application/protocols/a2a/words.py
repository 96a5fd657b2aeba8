"""A run in A2A's words: tasks, states, artifacts, messages, cards; and messages in ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from pentad import __version__
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tool_events import ApprovalAsked
from pentad.application.protocols.questions import Reply, form, question, reply

STATES: Mapping[str, Any] = {
    "running": TaskState.TASK_STATE_WORKING,
    "stalled": TaskState.TASK_STATE_WORKING,
    "waiting": TaskState.TASK_STATE_INPUT_REQUIRED,
    "answered": TaskState.TASK_STATE_COMPLETED,
    "refused": TaskState.TASK_STATE_REJECTED,
    "cancelled": TaskState.TASK_STATE_CANCELED,
    "budget_exceeded": TaskState.TASK_STATE_FAILED,
    "failed": TaskState.TASK_STATE_FAILED,
    "out_of_steps": TaskState.TASK_STATE_FAILED,
}
Pending = Sequence[tuple[str, ApprovalAsked]]
_YES = re.compile(r"\s*(yes|y|ok|okay|approve|approved|allow|allowed)[.!]?\s*", re.IGNORECASE)


def goal_of(message: Message) -> str:
    """The message as a goal: its texts, and its data as JSON.

    Raises ContentTypeNotSupportedError for files, InvalidParamsError for a message that says nothing.
    """
    parts = []
    for part in message.parts:
        match part.WhichOneof("content"):
            case "text":
                parts.append(part.text)
            case "data":
                parts.append(json.dumps(MessageToDict(part.data), ensure_ascii=False))
            case kind:
                raise ContentTypeNotSupportedError(f"parts are text or data here, not {kind}")
    text = "\n".join(parts)
    if not text.strip():
        raise InvalidParamsError("the message has no text")
    return text


def reply_of(message: Message, asked: ApprovalAsked) -> Reply:
    """What a message says to a question: data in the question's form, or a plain yes.

    Anything else denies, with the text as the reason.
    """
    for part in message.parts:
        if part.WhichOneof("content") == "data":
            data = MessageToDict(part.data)
            if isinstance(data, dict):
                return reply(asked, accepted=True, content=data)
    text = "\n".join(part.text for part in message.parts)
    if asked.kind == "input":
        names = list(form(asked).get("properties", {}))
        if len(names) == 1:
            return reply(asked, accepted=True, content={names[0]: text})
        return reply(asked, accepted=False, content=None)
    return reply(asked, accepted=True, content={"approve": bool(_YES.fullmatch(text)), "note": text})


def task_of(state: RunState, context_id: str, pending: Pending = ()) -> Task:
    """The run as a task, whole."""
    return Task(
        id=state.run_id,
        context_id=context_id,
        status=status_of(state, context_id, pending),
        artifacts=[artifact_of(state)] if state.status == "answered" else [],
        history=[_message(state, context_id, Role.ROLE_USER, "goal", state.goal)],
    )


def status_of(state: RunState, context_id: str, pending: Pending = ()) -> TaskStatus:
    """Its state, with what it asks or why it ended so."""
    made = TaskStatus(state=STATES[state.status])
    made.timestamp.FromDatetime(datetime.fromtimestamp(state.ended_s or state.started_s, UTC))
    if pending and not state.ended:
        said = Message(
            message_id=pending[0][1].approval_id,
            task_id=state.run_id,
            context_id=context_id,
            role=Role.ROLE_AGENT,
        )
        for _, asked in pending:
            said.parts.append(Part(text=question(asked)))
            said.parts.append(Part(data=ParseDict({"schema": form(asked)}, Value())))
        made.message.CopyFrom(said)
    elif state.ended and state.status != "answered":
        text = state.error or state.answer or f"the run ended {state.status}"
        made.message.CopyFrom(_message(state, context_id, Role.ROLE_AGENT, "end", text))
    return made


def artifact_of(state: RunState) -> Artifact:
    """The run's answer."""
    return Artifact(artifact_id="answer", name="answer", parts=[Part(text=state.answer)])


def status_update(state: RunState, context_id: str, pending: Pending = ()) -> TaskStatusUpdateEvent:
    """That the task came to its present state."""
    status = status_of(state, context_id, pending)
    return TaskStatusUpdateEvent(task_id=state.run_id, context_id=context_id, status=status)


def artifact_update(state: RunState, context_id: str) -> TaskArtifactUpdateEvent:
    """The answer, in one piece."""
    return TaskArtifactUpdateEvent(
        task_id=state.run_id, context_id=context_id, artifact=artifact_of(state), last_chunk=True
    )


def card_of(spec: AgentSpec, url: str, *, keys: bool) -> AgentCard:
    """The card of an agent that is served at `url`. `keys`: whether callers need one."""
    about = spec.description or f"The agent {spec.name}."
    card = AgentCard(
        name=spec.name,
        description=about,
        version=__version__,
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=url, protocol_binding="HTTP+JSON", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id=spec.name, name=spec.name, description=about, tags=["agent", *spec.tools])],
    )
    if keys:
        card.security_schemes["bearer"].http_auth_security_scheme.scheme = "Bearer"
        card.security_requirements.add().schemes["bearer"].SetInParent()
    return card


def _message(state: RunState, context_id: str, role: Any, name: str, text: str) -> Message:
    return Message(
        message_id=f"{state.run_id}-{name}",
        task_id=state.run_id,
        context_id=context_id,
        role=role,
        parts=[Part(text=text)],
    )
