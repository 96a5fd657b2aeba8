"""Sub-agents that inherit: their prompts begin as the prompt of the call that gave the task."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

from agent_support import call, harness, run
from pentad.agent.inheritance import continued, inherited
from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.sub_run_events import Inherited
from pentad.agent.tools.functions import tool
from pentad.model.template.adapting import Chat, adapt, open_chat
from pentad.model.template.chat import CHATML
from pentad.model.toolcalls import choose_format
from pentad.testing.backends import Item
from pentad.types import Message, Request, ToolChoice, ToolSpec
from team_support import agent, delegated, team

WATER = ToolSpec(name="water", description="Waters a bed.")
PRUNE = ToolSpec(name="prune", description="Prunes a tree.")
USER = Message(role="user", content="Tend the garden.")


@tool(effects="none")
def weigh(what: str) -> str:
    """Weighs a thing."""
    return f"{what} weighs 3 kg"


def draft(*tools: ToolSpec, system: str = "I prune.") -> ModelCallDraft:
    turn = MessageGroup(messages=(Message(role="user", content="Prune the pear."),), pinned=True, noted=True)
    return ModelCallDraft(
        purpose="act",
        system=system,
        turns=(turn,),
        tools=tools,
        tool_choice=ToolChoice(mode="auto" if tools else "none"),
        max_tokens=8,
    )


def prompt(messages: Sequence[Message], shown: Sequence[ToolSpec]) -> str:
    """As the model layer renders it with ChatML, whose system message then presents the tools."""
    chat = open_chat(CHATML, ["<|im_start|>", "<|im_end|>"], bos="", eos="<|im_end|>")
    assert isinstance(chat, Chat)
    rows, tools = adapt(messages, shown, chat.features, choose_format("hermes", None)[0])
    return "".join(segment.text for segment in chat.template.render(rows, tools))


def test_a_prompt_with_other_tools_begins_as_the_lead_s() -> None:
    lead = Request(
        id="1", model="m", messages=(Message(role="system", content="I lead."), USER), tools=(WATER,)
    )
    start = inherited(lead)
    assert start is not None
    for tools in ((PRUNE,), (), (WATER,), (WATER, PRUNE)):
        made = continued(draft(*tools), start, "bob")
        messages = [message for turn in made.turns for message in turn.messages]
        assert made.shown_tools == (WATER,)
        assert made.tools == tools
        whole, before = prompt(messages, made.shown_tools), prompt(lead.messages or (), lead.tools)
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(whole, before, strict=False))
        shared = "".join(char for char, _ in alike)
        assert shared.endswith(USER.content)
        told = whole[len(shared) :]
        assert ("Prunes a tree." in told) == (PRUNE in tools)
        assert told.index("You are now bob.") < told.index("I prune.") < told.index("Prune the pear.")
        assert "Prunes a tree." not in shared


def test_what_ends_with_a_result_goes_on_in_a_turn_of_its_own() -> None:
    ended = (USER, Message(role="tool", content="wet", tool_call_id="c"))
    made = continued(draft(), Inherited(messages=ended), "bob")
    assert made.turns[0].messages == ended
    assert made.turns[1].messages[0].content.startswith("You are now bob.")
    assert all(turn.pinned for turn in made.turns)
    assert made.turns[1].noted


def test_without_a_call_of_the_lead_nothing_is_inherited() -> None:
    assert inherited(None) is None
    assert inherited(Request(id="1", model="m", text="plain")) is None
    silent = Request(id="1", model="m", messages=(USER,), tools=(WATER,), tool_choice=ToolChoice(mode="none"))
    assert inherited(silent) == Inherited(messages=(USER,))
    assert continued(draft(), None, "bob") == draft()


def test_a_member_that_inherits_sees_the_conversation_and_calls_its_own_tools(tmp_path: pathlib.Path) -> None:
    asked: list[Request] = []

    def turn(request: Request) -> Sequence[Item]:
        asked.append(request)
        text = "".join(message.content for message in request.messages or ())
        if "You are now" not in text and "I am ann" not in text:
            done = any(message.role == "tool" for message in request.messages or ())
            return (
                ["done"]
                if done
                else [[delegated("ann", "weigh the pear"), delegated("bob", "rest", "c2")]][0]
            )
        return ["3 kg"] if "weighs" in text or "rest" in text else [call("weigh", what="pear")]

    members = {
        "ann": agent("ann", inherit="conversation", tools=("weigh",)),
        "bob": agent("bob", inherit="conversation"),
    }

    async def scenario() -> None:
        async with harness(tmp_path, [turn], tools=[weigh], repeat=True) as h:
            state = await h.work(team(members), "Weigh the harvest.")
            assert (state.status, state.answer) == ("answered", "done")
            lead = asked[0]
            sub = [r for r in asked if "You are now" in (r.messages or ())[-1].content or r.shown_tools]
            assert len(sub) == 3
            for request in sub:
                assert request.messages is not None
                assert lead.messages is not None
                assert request.messages[: len(lead.messages) - 1] == lead.messages[:-1]
                assert request.messages[len(lead.messages) - 1].content.startswith(lead.messages[-1].content)
                assert request.shown_tools == lead.tools
                assert {t.name for t in request.tools} <= {"weigh"}
            child = next(c for c in state.children.values() if c.agent == "ann")
            inner = h.runtime.show(child.run_id)  # folded from the journal
            assert inner.inherited == Inherited(messages=lead.messages or (), tools=lead.tools)

    run(scenario())


def test_a_member_sees_its_task_alone_where_nothing_is_said() -> None:
    assert agent("ann").inherit == "task"
