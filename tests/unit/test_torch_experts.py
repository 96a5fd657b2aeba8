"""Routing and grouped products of experts, against what a loop over tokens gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pentad.errors import Incompatible
from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.feed_forward import DenseWeights, ExpertWeights, route
from pentad.execution.torch.linear import Dense
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.torch.taps import LayerWalk
from pentad.execution.torch.training import Student
from ragged_batches import whole
from torch_reference import TINY, ArrayWeights, tiny_arrays

E, F, X = 8, 12, 8
EXPERT = FeedForward(width=F)
RECORDS = {
    "softmax": Experts(count=X, per_token=3, expert=EXPERT),
    "normalised": Experts(count=X, per_token=3, expert=EXPERT, normalised=True),
    "softmax_chosen": Experts(count=X, per_token=3, expert=EXPERT, scores="softmax_chosen"),
    "bias of scores": Experts(
        count=X, per_token=3, expert=EXPERT, scores="softmax_chosen", router_bias="scores"
    ),
    "bias of the choice": Experts(
        count=X,
        per_token=3,
        expert=EXPERT,
        scores="sigmoid",
        normalised=True,
        router_bias="choice",
        weight_scale=2.5,
    ),
    "softmax, bias of the choice": Experts(count=X, per_token=3, expert=EXPERT, router_bias="choice"),
    "groups of the two best": Experts(
        count=X,
        per_token=3,
        expert=EXPERT,
        scores="sigmoid",
        router_bias="choice",
        groups=4,
        chosen_groups=2,
    ),
    "groups of the best": Experts(count=X, per_token=3, expert=EXPERT, groups=4, chosen_groups=2),
    "weighed inputs": Experts(count=X, per_token=1, expert=EXPERT, scores="sigmoid", weigh_inputs=True),
    "clamped, with biases": Experts(
        count=X, per_token=3, expert=FeedForward(width=F, bias=True, clamped=True), scores="softmax_chosen"
    ),
    "shared": Experts(count=X, per_token=2, expert=EXPERT, shared=FeedForward(width=2 * F)),
    "weighed shared": Experts(count=X, per_token=2, expert=EXPERT, shared=EXPERT, shared_gate=True),
}


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def routed_alone(record: Experts, scores: np.ndarray, bias: np.ndarray) -> dict[int, float]:
    """One token's experts and weights, written down as the records' docstrings tell them."""
    if record.router_bias == "scores":
        scores = scores + bias
    given = {"softmax": softmax, "sigmoid": sigmoid, "softmax_chosen": lambda x: x}[record.scores](scores)
    ranked = given + bias if record.router_bias == "choice" else given
    if record.groups > 1:
        size, best = X // record.groups, 2 if record.scores == "sigmoid" else 1
        marks = [sum(sorted(ranked[g * size : (g + 1) * size])[-best:]) for g in range(record.groups)]
        chosen_groups = sorted(range(record.groups), key=lambda g: -marks[g])[: record.chosen_groups]
        ranked = np.array([r if e // size in chosen_groups else -np.inf for e, r in enumerate(ranked)])
    chosen = sorted(range(X), key=lambda e: -ranked[e])[: record.per_token]
    weights = given[chosen]
    if record.scores == "softmax_chosen":
        weights = softmax(weights)
    if record.normalised:
        weights = weights / weights.sum()
    return {e: w * record.weight_scale for e, w in zip(chosen, weights, strict=True)}


def forward_alone(record: FeedForward, tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    gate, up = (tensors[n] @ x + (tensors[f"{n}.bias"] if record.bias else 0) for n in ("gate", "up"))
    if record.clamped:
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        inner = gate * sigmoid(1.702 * gate) * (up + 1)
    else:
        inner = gate * sigmoid(gate) * up
    return tensors["down"] @ inner + (tensors["down.bias"] if record.bias else 0)


def random_tensors(record: Experts, spread: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape) * spread for name, shape in record.shapes(E).items()}


def part(tensors: dict[str, np.ndarray], prefix: str, index: int | None = None) -> dict[str, np.ndarray]:
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return own if index is None else {n: t[index] for n, t in own.items()}


def dense(record: FeedForward, tensors: dict[str, np.ndarray]) -> DenseWeights:
    made: Any = {
        name: Dense(
            torch.from_numpy(tensors[name]).float(),
            torch.from_numpy(tensors[f"{name}.bias"]).float() if record.bias else None,
        )
        for name in ("gate", "up", "down")
    }
    return DenseWeights(record=record, **made)


def experts(record: Experts, tensors: dict[str, np.ndarray]) -> ExpertWeights:
    def exact(name: str) -> torch.Tensor | None:
        return torch.from_numpy(tensors[name]).float() if name in tensors else None

    router = exact("router")
    assert router is not None
    return ExpertWeights(
        record=record,
        router=router,
        router_bias=exact("router.bias"),
        experts=tuple(dense(record.expert, part(tensors, "experts.", e)) for e in range(X)),
        shared=None if record.shared is None else dense(record.shared, part(tensors, "shared.")),
        shared_gate=exact("shared_gate"),
    )


@pytest.mark.parametrize("name", RECORDS)
def test_a_batch_gets_what_each_token_gets_by_the_record(name: str) -> None:
    record = RECORDS[name]
    tensors = random_tensors(record, 3.0 if record.expert.clamped else 1.0)
    rows = np.random.default_rng(2).normal(size=(40, E))
    bias = tensors.get("router.bias", np.zeros(X))
    expected = []
    for x in rows:
        total = np.zeros(E)
        for e, weight in routed_alone(record, tensors["router"] @ x, bias).items():
            one = part(tensors, "experts.", e)
            if record.weigh_inputs:
                total += forward_alone(record.expert, one, weight * x)
            else:
                total += weight * forward_alone(record.expert, one, x)
        if record.shared is not None:
            share = sigmoid(tensors["shared_gate"] @ x) if record.shared_gate else 1.0
            total += share * forward_alone(record.shared, part(tensors, "shared."), x)
        expected.append(total)
    found = experts(record, tensors)(torch.from_numpy(rows).float()).numpy()
    np.testing.assert_allclose(found, np.array(expected), rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_a_bias_of_the_choice_changes_who_computes_and_no_weight() -> None:
    record = dataclasses.replace(RECORDS["softmax, bias of the choice"], per_token=1)
    scores = torch.tensor([[3.0, 0, 0, 0, 0, 0, 0, 0]])
    bias = torch.tensor([0.0, 2, 0, 0, 0, 0, 0, 0])
    chosen, weights = route(record, scores, bias)
    assert chosen.tolist() == [[1]]
    assert weights.item() == pytest.approx(1 / (np.exp(3) + 7))


def test_experts_that_no_token_goes_to_are_not_read() -> None:
    record = RECORDS["softmax"]
    weights = experts(record, random_tensors(record, 1.0))
    chosen, _ = weights.route(torch.ones(1, E))
    broken: Any = [expert if e in chosen else None for e, expert in enumerate(weights.experts)]
    spared = dataclasses.replace(weights, experts=tuple(broken))
    assert torch.equal(spared(torch.ones(1, E)), weights(torch.ones(1, E)))


def routed_spec() -> ModelSpec:
    routed = Experts(count=4, per_token=2, expert=FeedForward(width=16), shared=FeedForward(width=32))
    return TINY.with_blocks(lambda block: dataclasses.replace(block, feed_forward=routed))


def test_training_computes_what_a_runner_computes() -> None:
    spec, tokens = routed_spec(), list(range(20))
    source = ArrayWeights(tiny_arrays(spec))
    runner = TorchRunner.load(spec, source, num_blocks=4, dtype="float32")
    student = Student(spec, source)
    with torch.no_grad():
        found = student.logits(torch.tensor([tokens]), {}).numpy()
    np.testing.assert_allclose(found, runner.logits(whole(tokens))[:-1], atol=1e-4)


def test_calibration_says_that_it_does_not_reach_into_experts() -> None:
    spec = routed_spec()
    source = ArrayWeights(tiny_arrays(spec))
    walk = LayerWalk(spec, source, [[1, 2, 3]])
    with pytest.raises(Incompatible, match="routed experts, whose inputs are not counted"):
        walk.taps(0, source)
    walk.advance(0, spec, source)
