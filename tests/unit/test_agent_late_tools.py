"""Tools that come in the middle of a run: told behind what was said, so that prompts begin as before."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent_support import FREE, Harness, call, harness, run, spec
from pentad import registry
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolsOffered
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.policy.base import Offer, Offerable
from pentad.choice import Choice
from pentad.model.relevance import Relevance
from pentad.model.template.adapting import Chat, adapt, open_chat
from pentad.model.template.chat import CHATML
from pentad.model.toolcalls import choose_format
from pentad.types import Request


def tool(name: str) -> Tool:
    async def act(arguments: Any, context: ToolContext) -> str:
        return f"{name} done"

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description=f"Does {name}.", parameters=schema, call=act, effects="none")


TOOLS = (tool("dig"), tool("sow"), tool("rake"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByStep:
    """A policy that offers other tools in other steps."""

    steps: tuple[str, ...] = ("dig", "dig sow", "dig sow rake", "sow rake")
    name = "by-step"

    async def offer(self, given: Offerable, relevance: Relevance) -> Offer:
        return Offer(tools=tuple(self.steps[given.state.step - 1].split()), why="its turn is not now")


@pytest.fixture(autouse=True)
def by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = {**registry.TABLE["tool_policy"], "by-step": f"{__name__}:ByStep"}
    monkeypatch.setitem(registry._TABLE, "tool_policy", policies)


AGENT = spec(tools=("dig", "sow", "rake"), planner=FREE, tool_policy=Choice(name="by-step"), max_steps=8)
TURNS = [[call("dig")], [call("sow")], [call("rake")], ["grown"]]


def prompt(request: Request) -> str:
    """As the model layer renders it with ChatML, whose system message presents the tools."""
    chat = open_chat(CHATML, ["<|im_start|>", "<|im_end|>"], bos="", eos="<|im_end|>")
    assert isinstance(chat, Chat)
    shown = request.tools if request.shown_tools is None else request.shown_tools
    rows, tools = adapt(request.messages or (), shown, chat.features, choose_format("hermes", None)[0])
    text = "".join(segment.text for segment in chat.template.render(rows, tools))
    return text.removesuffix("<|im_start|>assistant\n")


def offers(h: Harness, state: RunState) -> list[ToolsOffered]:
    return [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolsOffered)]


def check(requests: Sequence[Request]) -> None:
    assert [[t.name for t in r.tools] for r in requests] == [
        ["dig"],
        ["dig", "sow"],
        ["dig", "sow", "rake"],
        ["sow", "rake"],
    ]
    first, *later = map(prompt, requests)
    assert "Does dig." in first
    assert "Does sow." not in first
    for before, after in zip([first, *later], later, strict=False):
        assert after.startswith(before)
    told = [text.removeprefix(before) for before, text in zip([first, *later], later, strict=False)]
    assert [("Does sow." in text, "Does rake." in text) for text in told] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "can no longer call: dig" in told[2]


def test_a_prompt_begins_as_the_one_before_it_and_tells_the_change_at_its_end(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, TURNS, TOOLS) as h:
            state = await h.work(AGENT, "Grow beans")
            assert state.answer == "grown"
            check(h.backend.requests)
            assert [(e.step, " ".join(e.told.split()[5:6])) for e in offers(h, state)] == [
                (1, ""),
                (2, "also"),
                (3, "also"),
                (4, "no"),
            ]

    run(scenario())


def test_a_run_that_is_taken_up_by_another_process_tells_it_in_the_same_words(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, TURNS, TOOLS) as h:
            state = await h.work(AGENT, "Grow beans")
            whole = [r.event for r in h.records(state.run_id)]
            prompts = [prompt(request) for request in h.backend.requests]
        for cut in [i for i, event in enumerate(whole) if type(event).__name__ == "StepEnded"][:-1]:
            folder = tmp_path / f"cut-{cut}"
            done = sum(type(event).__name__ == "StepEnded" for event in whole[: cut + 1])
            async with harness(folder, TURNS[done:], TOOLS) as h:
                for event in whole[: cut + 1]:
                    await h.journal.append(state.run_id, event)
                await h.runtime.resume(state.run_id)
                assert (await h.runtime.wait(state.run_id)).answer == "grown"
                assert [prompt(request) for request in h.backend.requests] == prompts[done:]

    run(scenario())


def test_what_comes_before_the_first_call_of_a_tool_stands_in_front(tmp_path: pathlib.Path) -> None:
    planned = Choice(name="react", options={"mode": "free", "max_plan": 3})
    growing = Choice(name="by-step", options={"steps": ("dig", "dig sow", "dig sow")})
    plan = '{"plan": [{"tool": "dig", "task": "dig"}]}'

    async def scenario() -> None:
        async with harness(tmp_path, [[plan], [call("sow")], ["grown"]], TOOLS) as h:
            state = await h.work(replace(AGENT, planner=planned, tool_policy=growing), "Grow beans")
            assert state.answer == "grown"
            acting = [request for request in h.backend.requests if request.tools]
            assert all(request.shown_tools is None for request in acting)
            assert [e.told for e in offers(h, state)] == ["", ""]

    run(scenario())


def test_an_order_alone_is_not_told(tmp_path: pathlib.Path) -> None:
    turning = Choice(name="by-step", options={"steps": ("dig sow", "sow dig", "sow dig", "sow dig")})

    async def scenario() -> None:
        async with harness(tmp_path, [[call("dig")], ["grown"]], TOOLS) as h:
            state = await h.work(replace(AGENT, tool_policy=turning), "Grow beans")
            assert len(offers(h, state)) == 1
            first, second = map(prompt, h.backend.requests)
            assert second.startswith(first)

    run(scenario())
