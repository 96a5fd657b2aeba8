"""Idle agents pin no KV: more of them than the pool has room for wait, and go on as if they had it."""

from __future__ import annotations

import asyncio
import pathlib
from contextlib import aclosing

import pytest

from agent_support import FREE, run
from led_models import led
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAnswered
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.functions import tool

AGENTS, BLOCK = 6, 16
FACTS = "\n".join(f"Shelf {n} holds {n * 7 % 23} lamps of sort {n % 5}." for n in range(8))


@tool(effects="none")
def pay() -> str:
    """Pays a bill."""
    return "paid"


def clerk(number: int) -> AgentSpec:
    """One whose prompt begins as no other's does."""
    return AgentSpec(
        name=f"clerk{number}",
        instructions=f"You are clerk number {number} of the store.\n{FACTS}",
        tools=("pay",),
        ask=("pay",),
        planner=FREE,
        max_steps=3,
        max_tokens=6,
    )


async def worked(path: pathlib.Path, folder: pathlib.Path, kv_bytes: int) -> tuple[list[str], int, int, int]:
    """What each answers after its pause; blocks of the pool; tokens of a prompt; tokens computed again."""
    models = led(path, [("pay", "{}")] * AGENTS, prefix_cache=True, kv_bytes=kv_bytes)
    journal = Journal(folder / "journal.db")
    runtime = AgentRuntime(models, journal, toolbox=Toolbox([pay]))
    try:
        runs = []
        for number in range(AGENTS):
            run_id = await runtime.start(
                clerk(number), "Pay the bill, then say how many lamps shelf 3 holds."
            )
            runs.append(run_id)
            async with asyncio.timeout(60), aclosing(runtime.events(run_id)) as records:
                async for record in records:
                    if isinstance(record.event, ApprovalAsked):
                        break
        assert [row.status for row in runtime.list()] == ["waiting"] * AGENTS
        blocks = int(models.stats()["model"]["kv_blocks"])
        said, computed, tokens = [], 0, 0
        for run_id in runs:
            (approval,) = runtime.show(run_id).pending.values()
            await runtime.answer(run_id, approval.approval_id, approved=True)
            await runtime.wait(run_id)
            first, second = [r.event for r in journal.read(run_id) if isinstance(r.event, ModelAnswered)][:2]
            said.append(second.text)
            tokens = first.usage.prompt_tokens
            computed += max(0, tokens - second.usage.cached_tokens)
        return said, blocks, tokens, computed
    finally:
        await runtime.close()
        await models.close()


@pytest.mark.thorough
@pytest.mark.row("mem-agent-budget", "mechanism")
def test_three_times_as_many_agents_wait_as_the_pool_could_pin_and_answer_the_same(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path
) -> None:
    (tmp_path / "wide").mkdir()
    (tmp_path / "tight").mkdir()
    wide, room, tokens, again = run(worked(smollm2_path, tmp_path / "wide", 512 << 20), 300)
    assert room * BLOCK > AGENTS * tokens, "all could be pinned here"
    per_block = (512 << 20) // room
    kv_bytes = (AGENTS // 3) * (tokens // BLOCK + 2) * per_block
    tight, room, tokens, computed = run(worked(smollm2_path, tmp_path / "tight", kv_bytes), 300)
    assert 3 * (room * BLOCK // tokens) <= AGENTS
    assert tight == wide
    assert computed > again, "what was evicted was computed again"
