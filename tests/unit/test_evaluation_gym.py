"""Simulated worlds by gymnasium's interface."""

from __future__ import annotations

import json
import warnings

import pytest

pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env

from pentad.agent.environment.gym import WorldEnv


@pytest.mark.parametrize(
    "environment", ["household", "system", "database", "crafting", "shop", "kitchen", "computed"]
)
def test_gymnasium_accepts_a_world_as_one_of_its_own(environment: str) -> None:
    with warnings.catch_warnings():
        # It only advises: to register the environment under a name, for one.
        warnings.simplefilter("ignore")
        check_env(WorldEnv(environment), skip_render_check=True)


def test_an_episode_ends_when_the_task_is_done_and_its_rewards_add_up_to_one() -> None:
    env = WorldEnv("household", max_steps=40)
    goal, info = env.reset(seed=3)
    assert goal.startswith("You are in a house")
    assert "take" in info["tools"]
    total, ended = 0.0, False
    for each in env._world.task.solution:
        assert not ended
        told, reward, ended, late, info = env.step(
            json.dumps({"tool": each.tool, "arguments": each.arguments})
        )
        total += reward
        assert told
        assert not late
    assert (ended, total, info["score"]) == (True, pytest.approx(1.0), 1.0)


def test_what_is_no_call_changes_nothing_and_time_runs_out() -> None:
    env = WorldEnv("household", max_steps=3)
    env.reset(seed=1)
    before = env._world.snapshot()
    for number, action in enumerate(("nonsense", '{"tool": "fly"}', '{"tool": "go_to", "arguments": {}}'), 1):
        told, reward, ended, late, _ = env.step(action)
        assert told
        assert (reward, ended, late) == (0.0, False, number == 3)
    assert env._world.snapshot() == before
