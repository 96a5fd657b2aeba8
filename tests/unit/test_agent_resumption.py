"""A run is gone on with as what it was, by who was asked to."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from agent_support import harness, run, spec
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.errors import Conflict
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend


async def left(path: pathlib.Path, agent: AgentSpec, *, foreground: bool = False) -> str:
    """A run that a closed process left behind at its first model call."""
    never = asyncio.Event()
    async with harness(path, [["on", never]]) as h:
        run_id = await h.runtime.start(agent, "go on", foreground=foreground)
        async for record in h.runtime.events(run_id):
            if record.live:
                break
    return run_id


def test_a_run_left_by_ctrl_c_is_taken_up_only_when_asked(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        run_id = await left(tmp_path, spec(), foreground=True)
        async with harness(tmp_path, [["done"]]) as h:
            assert await h.runtime.resume_all() == []
            await h.runtime.resume(run_id)
            assert (await h.runtime.wait(run_id)).answer == "done"

    run(scenario())


@pytest.mark.parametrize("named", ["", "own"], ids=["default", "named"])
def test_a_run_is_not_gone_on_with_by_another_model(tmp_path: pathlib.Path, named: str) -> None:
    def runtime(**answers: str) -> AgentRuntime:
        models = {name: ScriptedBackend([[text]]) for name, text in answers.items()}
        return AgentRuntime(ModelService(models, router=Fixed()), Journal(tmp_path / "journal.db"))

    async def scenario() -> None:
        never = asyncio.Event()
        first = AgentRuntime(
            ModelService({"own": ScriptedBackend([["on", never]])}, router=Fixed()),
            Journal(tmp_path / "journal.db"),
        )
        run_id = await first.start(spec(model=named), "go on")
        async for record in first.events(run_id):
            if record.live:
                break
        await first.close()
        other = runtime(other="by another")
        with pytest.raises(Conflict, match="thinks with model 'own', which is not served here: other"):
            await other.resume(run_id)
        assert await other.resume_all() == []
        await other.close()
        # Served, but no longer the default: still its own.
        both = runtime(other="by another", own="by its own")
        await both.resume(run_id)
        assert (await both.wait(run_id)).answer == "by its own"
        await both.close()

    run(scenario())
