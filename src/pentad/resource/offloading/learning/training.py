"""Training: episodes of a scenario, a replay memory and Q-learning; one routine for all policies that learn.

All that is drawn depends on the seed and the number of the episode, and checkpoints are written between
episodes, so a training that goes on at one sees what it would have seen.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pentad import registry
from pentad.errors import BadModelFile, MissingExtra
from pentad.execution.value_learning import Array, Layers, MakeLearner, ValueLearner
from pentad.ranges import in_range
from pentad.resource.offloading.learning.environment import OffloadEnvironment
from pentad.resource.offloading.learning.features import scores
from pentad.resource.offloading.learning.policy_file import CurvePoint, PolicyFile
from pentad.resource.offloading.learning.replay import Experience, Memories
from pentad.resource.offloading.scenarios import Scenario

JUDGED = 1_000_000
"""First seed of the episodes by which a policy is judged; those it is trained on begin at seed * 10000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How long a policy is trained, and on what."""

    strategy: str
    scenario: Scenario
    steps: int = 4000
    """Choices; whole episodes are played, so a few more may be."""
    seed: int = 0
    memories: Memories = "one"
    placed: bool = False
    """Whether the network tells machines apart."""
    hidden: int = 32
    """Width of both inner layers."""
    learning_rate: float = 2e-3
    discount: float = 0.9
    batch: int = 64
    memory: int = 8000
    """Transitions that are kept."""
    warm_up: int = 200
    """Choices by chance in front of the first gradient step."""
    explored: float = 0.4
    """Share of the steps over which chance falls from 1 to `chance`."""
    chance: float = 0.05
    judged_episodes: int = 2
    """By whose mean cost a point of the curve is made."""
    judge_every: int = 3
    """Episodes between points of the curve."""

    def __post_init__(self) -> None:
        in_range("steps", self.steps, least=1, most=10**7)
        in_range("seed", self.seed, least=0, most=99_999)
        in_range("hidden", self.hidden, least=1, most=512)
        in_range("discount", self.discount, least=0, most=0.999)
        in_range("batch", self.batch, least=1, most=10**4)
        in_range("memory", self.memory, least=self.batch, most=10**6)

    def exploring(self, step: int) -> float:
        """Share of the choices that are left to chance."""
        return max(self.chance, 1 - (1 - self.chance) * step / max(1.0, self.explored * self.steps))


Tell = Callable[[int, int], None]
"""Told steps done and in total."""


def make_learner() -> MakeLearner:
    """What fits networks. Raises MissingExtra where PyTorch is not installed."""
    try:
        made: MakeLearner = registry.load("value_learner", "torch")
    except ImportError:
        raise MissingExtra(
            "policies learn with PyTorch, which is not installed", hint="pip install 'pentad[torch]'"
        ) from None
    return made


def train_policy(
    plan: TrainingPlan, *, checkpoint: pathlib.Path | None = None, tell: Tell = lambda _done, _of: None
) -> PolicyFile:
    """Trains a policy; of its curve, the best network is kept.

    Args:
        checkpoint: written between episodes and taken up where it is of the same plan; None keeps none.
        tell: told the progress; an exception of it ends the training, whose checkpoint stays.

    Raises:
        MissingExtra: PyTorch is not installed.
        BadModelFile: the checkpoint is damaged, or of another plan.
    """
    training = _Training(plan)
    if checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    while training.steps < plan.steps:
        tell(training.steps, plan.steps)
        training.episode()
        if checkpoint is not None:
            training.write(checkpoint)
    tell(plan.steps, plan.steps)
    return training.policy()


class _Training:
    """A training between two episodes."""

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self._environment = OffloadEnvironment(plan.scenario, placed=plan.placed)
        sites, width = self._environment.shape
        self._learner: ValueLearner = make_learner()(
            (width, plan.hidden, plan.hidden, 1),
            seed=plan.seed,
            learning_rate=plan.learning_rate,
            discount=plan.discount,
            target_rate=0.01,
        )
        self._experience = Experience(plan.memories, plan.memory, sites, width)
        self.steps = 0
        self._episodes = 0
        self._curve: list[CurvePoint] = []
        self._best: Layers = _copied(self._learner.weights)

    def episode(self) -> None:
        """One episode, and a point of the curve where one is due."""
        plan = self._plan
        dice = np.random.default_rng((plan.seed, self._episodes, 0xAC))
        table, info = self._environment.reset(seed=plan.seed * 10_000 + self._episodes)
        over = False
        while not over:
            action = self._choose(table, info["allowed"], dice)
            chosen, kind = table[action].copy(), self._environment.sites[action].kind
            table, reward, over, _, info = self._environment.step(action)
            self._experience.add(kind, chosen, reward, None if over else table[info["allowed"]])
            self.steps += 1
            if len(self._experience) > plan.warm_up:
                self._learner.update(self._experience.draw(plan.batch, dice))
        self._episodes += 1
        if self._episodes % plan.judge_every == 0 or self.steps >= plan.steps:
            self._judge()

    def _choose(self, table: Array, allowed: npt.NDArray[np.bool_], dice: np.random.Generator) -> int:
        if dice.random() < self._plan.exploring(self.steps):
            return int(dice.choice(np.flatnonzero(allowed)))
        return best_of(self._learner.weights, table, allowed)

    def _judge(self) -> None:
        weights = _copied(self._learner.weights)
        cost, met = judged(self._environment, weights, self._plan.judged_episodes)
        if all(cost < point.cost for point in self._curve):
            self._best = weights
        self._curve.append(CurvePoint(step=self.steps, cost=cost, met=met))

    def policy(self) -> PolicyFile:
        plan = self._plan
        return PolicyFile(
            strategy=plan.strategy,
            scenario=plan.scenario.name,
            environment_sha256=plan.scenario.digest,
            seed=plan.seed,
            steps=self.steps,
            memories=plan.memories,
            placed=plan.placed,
            weights=asdict(plan.scenario.weights),
            curve=tuple(self._curve),
            best_step=min(self._curve, key=lambda point: point.cost).step,
            matrices=tuple(tuple(map(tuple, matrix.tolist())) for matrix, _ in self._best),
            biases=tuple(tuple(bias.tolist()) for _, bias in self._best),
        )

    def write(self, path: pathlib.Path) -> None:
        """Replaces the checkpoint."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "plan": np.array(repr(self._plan)),
            "counts": np.array([self.steps, self._episodes]),
            "curve": np.array([(point.step, point.cost, point.met) for point in self._curve]).reshape(-1, 3),
        }
        arrays |= {f"learner/{name}": array for name, array in self._learner.state().items()}
        arrays |= {f"experience/{name}": array for name, array in self._experience.state().items()}
        for at, (matrix, bias) in enumerate(self._best):
            arrays |= {f"best/{at}/matrix": matrix, f"best/{at}/bias": bias}
        partial = path.with_name(path.name + ".new")
        with partial.open("wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)

    def restore(self, path: pathlib.Path) -> None:
        """Takes up a checkpoint."""
        try:
            with path.open("rb") as source, np.load(source, allow_pickle=False) as arrays:
                if str(arrays["plan"]) != repr(self._plan):
                    raise BadModelFile(
                        f"the checkpoint {str(path)!r} is of another training",
                        hint="remove it, choose another --out, or give the same flags as before",
                        param="out",
                    )
                self._learner.restore(_below("learner/", arrays))
                self._experience.restore(_below("experience/", arrays))
                self.steps, self._episodes = (int(each) for each in arrays["counts"])
                self._curve = [
                    CurvePoint(step=int(step), cost=float(cost), met=float(met))
                    for step, cost, met in arrays["curve"]
                ]
                self._best = [
                    (arrays[f"best/{at}/matrix"], arrays[f"best/{at}/bias"]) for at in range(len(self._best))
                ]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BadModelFile(
                f"the checkpoint {str(path)!r} cannot be read: {error}",
                hint="remove it to begin anew",
                param="out",
            ) from error


def _below(prefix: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def _copied(layers: Layers) -> Layers:
    return [(matrix.copy(), bias.copy()) for matrix, bias in layers]


def best_of(layers: Layers, table: Array, allowed: npt.NDArray[np.bool_]) -> int:
    """The allowed row that the network scores highest; of equal ones the first."""
    return int(np.argmax(np.where(allowed, scores(layers, table), -np.inf)))


def judged(environment: OffloadEnvironment, layers: Layers, episodes: int) -> tuple[float, float]:
    """Mean cost of requests and share of deadlines met, in episodes of their own, nothing left to chance."""
    costs, met = [], []
    for seed in range(JUDGED, JUDGED + episodes):
        table, info = environment.reset(seed=seed)
        over = False
        while not over:
            table, reward, over, _, info = environment.step(best_of(layers, table, info["allowed"]))
            costs.append(-reward)
            met.append(info["placed"].met)
    return float(np.mean(costs)), float(np.mean(met))
