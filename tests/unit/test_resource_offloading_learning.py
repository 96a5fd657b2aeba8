"""Policies that learn: what they see, training that is repeated and resumed, files, and what they gain."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import sys

import numpy as np
import pytest
from offload_policies import KEPT, built, kept, made_up
from test_resource_offloading_mobile import EDGE, HERE, TASK, Only, costs, policy

from evidence.plugin import Measure
from pentad import registry
from pentad.application.cli import main
from pentad.choice import Choice, build
from pentad.errors import BadModelFile, InvalidRequest, MissingExtra, UnknownName
from pentad.execution.value_learning import Transitions
from pentad.resource.offloading.active_inference import mutual_information
from pentad.resource.offloading.base import Offloading, OffloadInput, OffloadOutcome, Site
from pentad.resource.offloading.learning import trained_strategies
from pentad.resource.offloading.learning.features import PLAIN, features
from pentad.resource.offloading.learning.gym import OffloadEnv
from pentad.resource.offloading.learning.learnt import ByNetwork
from pentad.resource.offloading.learning.policy_file import read_policy, write_policy
from pentad.resource.offloading.learning.replay import Experience
from pentad.resource.offloading.learning.training import TrainingPlan, make_learner, train_policy
from pentad.resource.offloading.mobile_world import play
from pentad.resource.offloading.scenarios import SCENARIOS, Shift, scenario
from pentad.types import Objective, RunContext

SMALL = TrainingPlan(
    strategy="deep-q",
    scenario=scenario("mobile-edge", requests=15),
    steps=60,
    warm_up=20,
    batch=8,
    memory=64,
    hidden=8,
    judged_episodes=1,
    judge_every=1,
)
BY_DEADLINE = RunContext(objective=Objective(deadline_s=2.0))


def state(*sites: Site, number: int = 0, **changes: object) -> OffloadInput:
    task = dataclasses.replace(TASK, id=str(number), context=BY_DEADLINE)
    return dataclasses.replace(OffloadInput(task=task, sites=sites, now_s=0.0), **changes)  # type: ignore[arg-type]


@dataclasses.dataclass(slots=True)
class Randomly:
    """Any of the sites."""

    dice: np.random.Generator

    def choose(self, state: OffloadInput) -> tuple[str, None]:
        return state.sites[int(self.dice.integers(len(state.sites)))].name, None

    def learn(self, outcome: OffloadOutcome) -> None: ...


class TestFeatures:
    def test_times_are_shares_of_the_deadline_and_placed_ones_tell_machines_apart(self) -> None:
        table = features(state(HERE, EDGE), (HERE, EDGE))
        row = dict(zip(PLAIN, table[1], strict=True))
        assert row["completion"] == pytest.approx((0.02 + 1.0 + 0.1 + 0.1) / 2)
        assert row["sending"] == pytest.approx(1.02 / 2)
        assert (row["device"], row["edge"], row["remote"], row["late"]) == (0, 1, 0, 0)
        assert row["slack"] == pytest.approx(0.39)
        other = dataclasses.replace(EDGE, name="other")
        first, second = features(state(EDGE, other), (EDGE, other))
        assert (first == second).all()
        first, second = features(state(EDGE, other), (EDGE, other), placed=True)
        assert first[len(PLAIN) :].tolist() == [1, 0, 0, 0]
        assert second[len(PLAIN) :].tolist() == [0, 1, 0, 0]


class TestLearner:
    def batch(self, goes_on: bool) -> Transitions:
        return Transitions(
            features=np.array([[1, 0], [0, 1]], np.float32),
            rewards=np.array([-1.0, -2.0], np.float32),
            next_features=np.array([[[1, 0], [0, 1], [9, 9]]] * 2, np.float32),
            next_there=np.array([[True, True, False]] * 2),
            goes_on=np.array([goes_on] * 2),
        )

    @pytest.mark.parametrize(("goes_on", "wanted"), [(False, (-1.0, -2.0)), (True, (-2.0, -3.0))])
    def test_values_are_the_reward_and_the_discounted_best_of_what_follows(
        self, goes_on: bool, wanted: tuple[float, float]
    ) -> None:
        learner = make_learner()((2, 16, 1), seed=0, learning_rate=0.02, discount=0.5, target_rate=0.1)
        for _ in range(400):
            learner.update(self.batch(goes_on))
        (first, shift), (second, end) = learner.weights
        inner = np.maximum(np.eye(2, dtype=np.float32) @ first + shift, 0)
        # -1 + 0.5 * (-2) = -2 is the better of both, and what is not there (9, 9) counts for nothing.
        assert (inner @ second + end)[:, 0] == pytest.approx(wanted, abs=0.05)

    def test_a_state_that_does_not_fit_is_refused(self) -> None:
        small, large = (
            make_learner()((2, width, 1), seed=0, learning_rate=0.1, discount=0.5, target_rate=0.1)
            for width in (4, 8)
        )
        with pytest.raises(ValueError, match="weights has"):
            large.restore(small.state())

    def test_without_pytorch_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(family: str, name: str) -> object:
            raise ImportError(name)

        monkeypatch.setattr(registry, "load", absent)
        with pytest.raises(MissingExtra, match=r"pip install 'pentad\[torch\]'"):
            make_learner()


@pytest.mark.row("ra-xiong", "mechanism")
def test_memories_by_kind_give_equal_parts_of_a_batch_and_keep_what_is_rare() -> None:
    one, groups = (Experience(memories, 90, 1, 1) for memories in ("one", "by-kind"))  # type: ignore[arg-type]
    for experience in (one, groups):
        experience.add("remote", np.array([7.0], np.float32), -7.0, None)
        for _ in range(200):
            experience.add("edge", np.array([1.0], np.float32), -1.0, None)
    dice = np.random.default_rng(0)
    assert (one.draw(60, dice).rewards == -1).all()  # the rare one has been overwritten
    drawn = groups.draw(60, dice).rewards
    assert (drawn == -7).sum() == (drawn == -1).sum() == 30
    other = Experience("by-kind", 90, 1, 1)
    other.restore(groups.state())
    assert len(other) == len(groups) == 31


class TestTraining:
    def test_the_same_plan_makes_the_same_policy_and_another_seed_another(self) -> None:
        first, second = train_policy(SMALL), train_policy(SMALL)
        assert first == second
        assert first.environment_sha256 == SMALL.scenario.digest
        assert [point.step for point in first.curve] == [15, 30, 45, 60]
        assert first.best_step == min(first.curve, key=lambda point: point.cost).step
        assert train_policy(dataclasses.replace(SMALL, seed=1)).matrices != first.matrices

    def test_an_interrupted_training_goes_on_to_the_same_policy(self, tmp_path: pathlib.Path) -> None:
        kept_in = tmp_path / "checkpoint"

        def cancel(done: int, of: int) -> None:
            if done >= 30:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_policy(SMALL, checkpoint=kept_in, tell=cancel)
        told = []
        resumed = train_policy(SMALL, checkpoint=kept_in, tell=lambda done, _of: told.append(done))
        assert told[0] == 30
        assert resumed == train_policy(SMALL)

    def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(
        self, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / "checkpoint"
        short = dataclasses.replace(SMALL, steps=15)
        train_policy(short, checkpoint=path)
        with pytest.raises(BadModelFile, match="is of another training; remove it"):
            train_policy(SMALL, checkpoint=path)
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(BadModelFile, match="cannot be read"):
            train_policy(short, checkpoint=path)

    def test_the_verb_writes_a_policy_that_is_chosen_by_name(
        self, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "cnc.json"
        words = [
            "pentad",
            "train-policy",
            "cnc",
            "--out",
            str(out),
            "--steps",
            "150",
            "--seed",
            "2",
            "--json",
        ]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["strategy"], told["scenario"], told["seed"]) == ("cnc", "matching", 2)
        assert told["environment_sha256"] == SCENARIOS["matching"].digest
        working = build("offload", Choice.of(f"cnc:policy={out}")).start()
        assert working.choose(state(HERE, EDGE))[0] in ("here", "edge")
        assert [each.name for each in tmp_path.iterdir()] == ["cnc.json"]

    def test_what_cannot_be_trained_is_refused_with_what_can(self) -> None:
        with pytest.raises(UnknownName, match=r"known: .*deep-q"):
            trained_strategies.plan("fastest")
        with pytest.raises(UnknownName, match="mobile-edge"):
            trained_strategies.plan("deep-q", scenario="nowhere")
        with pytest.raises(InvalidRequest, match="choose another --out"):
            trained_strategies.checkpoint_of(pathlib.Path("/no/such/folder/x.json"))


class TestPolicyFiles:
    @pytest.mark.parametrize("name", trained_strategies.names())
    def test_without_a_file_the_command_that_trains_it_is_named(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match=f"pentad train-policy {name} --out FILE"):
            build("offload", Choice(name=name)).start()

    def test_what_is_no_policy_of_this_strategy_is_refused(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "policy.json"
        with pytest.raises(BadModelFile, match="cannot be read: No such file"):
            read_policy(str(path), "deep-q")
        write_policy(path, made_up("cnc"))
        with pytest.raises(BadModelFile, match="was trained for 'cnc', not for 'deep-q'"):
            read_policy(str(path), "deep-q")
        wrong = made_up("deep-q", biases=((0.0,) * 3, (0.0,)))
        for number, bad in enumerate((wrong, made_up("deep-q", biases=((float("inf"),) * 4, (0.0,))))):
            path = tmp_path / f"{number}.json"
            write_policy(path, bad)
            with pytest.raises(BadModelFile, match="is no policy file"):
                read_policy(str(path), "deep-q")
        path.write_text("{", encoding="utf-8")
        with pytest.raises(BadModelFile, match="train it again"):
            read_policy(str(path), "deep-q")

    @pytest.mark.parametrize("name", ["deep-q", "cnc", "test-time"])
    def test_those_that_are_kept_are_of_the_scenarios_as_they_are(self, name: str) -> None:
        found = read_policy(str(KEPT / f"{name}.json"), name)
        assert found.environment_sha256 == SCENARIOS[found.scenario].digest
        assert len(found.curve) >= 3


def test_the_gymnasium_environment_has_its_interface() -> None:
    environment = OffloadEnv("mobile-edge", requests=3)
    seen, info = environment.reset(seed=4)
    assert environment.observation_space.contains(seen)
    again, _ = environment.reset(seed=4)
    assert (seen == again).all()
    ends = []
    for _ in range(3):
        seen, reward, over, cut, info = environment.step(int(environment.action_space.n) - 1)
        assert reward == pytest.approx(-info["placed"].cost)
        ends.append((over, cut))
    assert ends == [(False, False), (False, False), (True, False)]


class TestActiveInference:
    @pytest.mark.row("ra-he-active", "mechanism")
    def test_what_is_not_known_is_worth_a_try_and_what_failed_is_left(self) -> None:
        assert mutual_information(1, 1) == pytest.approx(np.log(2) - 0.5)  # of an even belief, by hand
        assert mutual_information(100, 1) < mutual_information(10, 1) < mutual_information(1, 1)
        one, two = (dataclasses.replace(EDGE, name=name, bytes_per_s=4e6) for name in ("one", "two"))
        working = policy("active-inference")
        assert working.choose(state(one, two))[0] == "one"
        working.learn(OffloadOutcome(id="0", site="one", completion_s=9.0))
        assert working.choose(state(one, two, number=1))[0] == "two"
        working.learn(OffloadOutcome(id="1", site="two", completion_s=0.5))
        assert working.choose(state(one, two, number=2))[0] == "two"
        with pytest.raises(InvalidRequest, match="preference is "):
            policy("active-inference", preference=1.0)


class TestTestTime:
    @pytest.mark.row("ra-xu-t2drl", "mechanism")
    def test_outcomes_move_the_network_away_from_a_site_that_has_become_bad_unless_it_is_frozen(self) -> None:
        one, two = (dataclasses.replace(EDGE, name=name) for name in ("one", "two"))

        def walk(**options: object) -> list[str]:
            working = built("test-time", batch=8, latest=64, learning_rate=0.02, chance=0.1, **options).start(
                1
            )
            found = []
            for number in range(150):
                site = working.choose(state(one, two, number=number))[0]
                found.append(site)
                slow = site == found[0]
                working.learn(OffloadOutcome(id=str(number), site=site, completion_s=8.0 if slow else 0.5))
            return found

        frozen, learning = walk(steps=0), walk(steps=2)
        assert set(frozen) == {frozen[0]}
        assert learning[0] == frozen[0]
        assert learning[-40:].count(frozen[0]) < 10


class TestCnc:
    @pytest.mark.row("cm-cnc", "mechanism", claims=(1,))
    def test_all_four_parts_tell_what_they_found(self) -> None:
        working = built("cnc", most_share=0.5, window=4, rate=1.0).start()
        remote = dataclasses.replace(EDGE, name="cloud", kind="remote")
        first, decision = working.choose(state(HERE, EDGE, remote))
        assert [name for name, _ in decision.parts] == [
            "perception",
            "adaptation",
            "governance",
            "scheduling",
        ]
        told = dict(decision.parts)
        assert told["perception"].startswith("3 of 3 sites free")
        assert told["adaptation"] == "all machines are as they say"
        assert told["governance"] == "no site left out"
        assert told["scheduling"].startswith(f"{first}, the highest value of 3")
        working.learn(OffloadOutcome(id="0", site=first, completion_s=3 * 1.22 if first != "here" else 6.0))
        _, decision = working.choose(state(HERE, EDGE, remote, number=1))
        assert f"{first} x3.00" in dict(decision.parts)["adaptation"]
        for number in range(2, 6):
            _, decision = working.choose(state(HERE, EDGE, remote, number=number))
        assert "left out by most_share" in dict(decision.parts)["governance"]
        assert decision.constraint == "most_share"


@pytest.mark.thorough
@pytest.mark.row("ra-tong", "effect", claims=(1,))
def test_deep_q_costs_less_than_all_here_all_at_the_edge_and_random(measured: Measure) -> None:
    """Trained with seed 1; judged on the 2 episodes of seeds 72 and 73, which it has not seen."""
    world, seeds = SCENARIOS["mobile-edge"], range(72, 74)
    ours = costs(world, kept("deep-q").start(), seeds)
    rivals: dict[str, Offloading] = {
        "all here": Only(kind="device", world=world).start(),
        "all at the edge": Only(kind="edge", world=world).start(),
        "random": Randomly(np.random.default_rng(5)),  # type: ignore[dict-item]
    }
    for name, rival in rivals.items():
        theirs = costs(world, rival, seeds)
        print(f"\ndeep-q {ours:.3f}, {name} {theirs:.3f}")
        measured(f"cost of deep-q over {name}, 2 seeds", ours / theirs, at_most=0.85)


@pytest.mark.row("ra-tong", "mechanism")
def test_the_site_of_the_highest_value_is_taken_and_its_score_is_the_least() -> None:
    weights = np.zeros((len(PLAIN), 1))
    weights[PLAIN.index("completion")] = -1.0
    linear = made_up("deep-q", matrices=(tuple(map(tuple, weights.tolist())),), biases=((0.0,),))
    working = ByNetwork("deep-q", linear)
    chosen, decision = working.choose(state(HERE, EDGE))
    assert chosen == "edge"
    assert dict(decision.candidates) == pytest.approx({"here": 2.0 / 2, "edge": 1.22 / 2})


@pytest.mark.thorough
@pytest.mark.row("cm-cnc", "effect", claims=(2,), negative=True)
def test_the_brain_costs_less_than_greedy_but_not_by_a_tenth(measured: Measure) -> None:
    """Greedy takes what costs the request itself least. Judged on 4 seeds not looked at before.

    The row asks for 10%; it is 9%, and was 10% on the two seeds looked at before. Greedy sees every queue
    here, so little is left to foresight but to keep fast machines free for urgent requests.
    """
    world, seeds = SCENARIOS["matching"], range(72, 76)
    ours, greedy = (costs(world, each, seeds) for each in (kept("cnc").start(), policy("vehicular-split")))
    print(f"\nbrain {ours:.3f}, greedy {greedy:.3f}")
    measured("cost of the brain over greedy, 4 seeds", ours / greedy, at_most=1.0)


@pytest.mark.thorough
@pytest.mark.row("ra-xu-t2drl", "effect", claims=(1,), negative=True)
def test_behind_a_change_who_learns_at_work_costs_less_but_not_by_as_much_as_asked(measured: Measure) -> None:
    """The way to the cloud takes 5 s more from the 160th of 400 requests on, untold.

    The row asks for 15% less than the frozen network; it is 14% over these two seeds. Trying sites and
    learning cost something too, and the first requests behind the change teach it.
    """
    world = scenario("agent-cache", requests=400, shift=Shift(at=0.4, cloud_late_s=5.0))

    def behind(steps: int) -> float:
        found = [play(world, kept("test-time", steps=steps).start(seed), seed)[160:] for seed in (80, 81)]
        return statistics.fmean(each.cost for episode in found for each in episode)

    frozen, learning = behind(0), behind(1)
    print(f"\nbehind the change: frozen {frozen:.3f}, learning {learning:.3f}")
    measured("cost of learning over frozen behind the change, 2 seeds", learning / frozen, at_most=1.0)
