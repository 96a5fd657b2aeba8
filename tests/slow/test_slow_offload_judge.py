"""Our Q-learning of offload policies against that of Stable-Baselines3, which is no dependency of ours.

Runs where it is installed: pip install stable-baselines3
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.resource.offloading.learning.environment import OffloadEnvironment
from pentad.resource.offloading.learning.gym import OffloadEnv
from pentad.resource.offloading.learning.training import JUDGED, TrainingPlan, judged, train_policy
from pentad.resource.offloading.scenarios import scenario

sb3 = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, which judges our learner")
pytestmark = pytest.mark.slow
EPISODES = 6
"""That both are judged by, the same ones."""
PLAN = TrainingPlan(
    strategy="deep-q", scenario=scenario("mobile-edge", requests=60), steps=2400, judge_every=4
)


def theirs(plan: TrainingPlan) -> Any:
    """The same number of choices with their DQN and what settings both have."""
    model = sb3.DQN(
        "MlpPolicy",
        OffloadEnv("mobile-edge", requests=60),
        learning_rate=plan.learning_rate,
        gamma=plan.discount,
        buffer_size=plan.memory,
        batch_size=plan.batch,
        learning_starts=plan.warm_up,
        train_freq=1,
        target_update_interval=100,
        exploration_fraction=plan.explored,
        exploration_final_eps=plan.chance,
        policy_kwargs={"net_arch": [plan.hidden, plan.hidden]},
        seed=plan.seed,
        device="cpu",
    )
    return model.learn(plan.steps)


def their_cost(model: Any, environment: OffloadEnvironment) -> float:
    """Mean cost of requests as `judged` counts it; of the sites that are allowed their network's best."""
    costs = []
    for seed in range(JUDGED, JUDGED + EPISODES):
        table, info = environment.reset(seed=seed)
        over = False
        while not over:
            seen, _ = model.policy.obs_to_tensor(table.ravel())
            values = model.q_net(seen).detach().numpy()[0]
            best = int(np.argmax(np.where(info["allowed"], values, -np.inf)))
            table, reward, over, _, info = environment.step(best)
            costs.append(-reward)
    return statistics.fmean(costs)


def test_ours_learns_as_well_as_stable_baselines(measured: Measure) -> None:
    """Mean over three seeds, after equally many choices of each."""
    environment = OffloadEnvironment(PLAN.scenario)
    ours, others = [], []
    for seed in (11, 12, 13):
        plan = dataclasses.replace(PLAN, seed=seed)
        ours.append(judged(environment, list(train_policy(plan).layers), EPISODES)[0])
        others.append(their_cost(theirs(plan), environment))
    print(f"\ncost of a request: ours {ours}, Stable-Baselines3 {others}")
    ratio = statistics.fmean(ours) / statistics.fmean(others)
    measured("cost of our policy over that of Stable-Baselines3, 3 seeds", ratio, at_most=1.05)
