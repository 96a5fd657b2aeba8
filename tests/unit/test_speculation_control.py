"""The controller, on a device whose times are known: it drafts what pays, and no more."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.speculation.base import Ask, DraftPlan, chain_options
from pentad.execution.speculation.control import Controller, Room, Standing
from pentad.execution.speculation.costs import StepCosts
from pentad.execution.speculation.stage import Speculation
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy
from pentad.testing.speculators import ArbitrarySpeculator

TOKENS = 400


class Device(ToyRunner):
    """Steps take a time that depends on their tokens alone."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        super().__init__(num_blocks=2000, context_length=2048)
        self.now_s = 0.0
        self.seconds = seconds

    def logits(self, batch: RaggedBatch) -> np.ndarray:
        self.now_s += self.seconds(len(batch.token_ids))
        return super().logits(batch)


class Guess(ArbitrarySpeculator):
    """Chains as long as planned, each token right with a chance that depends on the text's length."""

    def __init__(self, device: Device, chance: Callable[[int], float], level_s: float = 0.0) -> None:
        super().__init__(5, 97)
        self.random = random.Random(7)
        self.device = device
        self.chance = chance
        self.level_s = level_s
        self.answers: dict[str, list[int]] = {}

    def options(self, rates: Sequence[float], most_tokens: int) -> Sequence[DraftPlan]:
        return chain_options(rates[0], most_tokens, tuple(range(1, 17)))

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        self.device.now_s += self.level_s * max(ask.plan.depth for ask in asks)
        return [chain([self.token(ask, i) for i in range(ask.plan.tokens)]) for ask in asks]

    def token(self, ask: Ask, ahead: int) -> int:
        at = len(ask.tokens) + ahead
        right = self.random.random() < self.chance(at)
        return self.answers[ask.id][at] if right else -1 % 97


def timed(
    seconds: Callable[[int], float],
    chance: Callable[[int], float],
    *,
    level_s: float = 0.0,
    sequences: int = 1,
    fixed: int | None = None,
    plain: bool = False,
) -> tuple[float, Engine, dict[str, list[str]]]:
    """Seconds that answers of 400 tokens take, the engine, and what the records say."""
    device = Device(seconds)
    guess = Guess(device, chance, level_s)
    engine = toy_engine(
        Sarathi(),
        runner=device,
        clock=lambda: device.now_s,
        max_sequences=32,
        max_batch_tokens=512,
        check_invariants=False,
        speculation=None if plain else Speculation(guess, most_tokens=fixed or 16, adaptive=fixed is None),
    )
    requests = [token_request(f"r{i}", (i,), TOKENS) for i in range(sequences)]
    for request in requests:
        guess.answers[request.id] = [request.prompt[0], *answer(request), *[0] * 20]
        engine.add(request)
    records: dict[str, list[str]] = {}
    while engine.has_work:
        for output in engine.step():
            if output.stats is not None:
                records[output.id] = [d.chosen for d in output.stats.decisions if d.subject == "draft_tokens"]
    return device.now_s, engine, records


_ANSWERS: dict[int, list[int]] = {}


def answer(request: TokenRequest) -> list[int]:
    first = request.prompt[0]
    if first not in _ANSWERS:
        _ANSWERS[first] = greedy(request.prompt, TOKENS)
    return _ANSWERS[first]


def measured(tokens: int) -> float:
    """Verification on the native kernels at context 256, in plain steps (SmolLM2-135M)."""
    return float(np.interp(tokens, [1, 2, 3, 4, 6, 8, 16, 32], [1.0, 1.09, 1.31, 1.36, 1.7, 2.01, 2.71, 5.0]))


def test_where_tokens_cost_nothing_the_longest_drafts_are_taken() -> None:
    seconds, engine, records = timed(lambda _: 1.0, lambda _: 0.98)
    assert seconds < TOKENS / 8
    assert engine.stats()["draft_tokens_total"] / engine.stats()["draft_verifications_total"] > 14
    assert len(records["r0"]) == 1
    assert records["r0"] != ["none"]


@pytest.mark.parametrize("chance", [0.3, 0.5, 0.7, 0.9, 0.97])
def test_the_chosen_lengths_are_nearly_as_good_as_the_best_fixed_one(chance: float) -> None:
    adaptive = timed(measured, lambda _: chance)[0]
    fixed = min(timed(measured, lambda _: chance, fixed=k)[0] for k in (1, 2, 3, 5, 7, 11, 16))
    best = min(fixed, TOKENS)
    print(f"right {chance:.0%}: {TOKENS / adaptive:.2f} times plain, best fixed {TOKENS / best:.2f}")
    assert adaptive < best * 1.12
    if chance >= 0.9:
        assert TOKENS / adaptive > 1.9


@pytest.mark.row("cpu-llma", "mechanism")
@pytest.mark.parametrize(
    ("seconds", "chance", "level_s"),
    [
        (lambda tokens: float(tokens), 0.6, 0.0),  # every token costs a step
        (measured, 0.02, 0.0),  # nearly always wrong
        (measured, 0.8, 0.7),  # a draft model hardly faster than the target
    ],
)
def test_what_loses_is_switched_off_and_costs_less_than_5_percent(
    seconds: Callable[[int], float], chance: float, level_s: float
) -> None:
    spent, engine, records = timed(seconds, lambda _: chance, level_s=level_s)
    print(f"{spent / TOKENS:.3f} of plain decoding")
    assert spent < 1.05 * TOKENS * seconds(1)
    assert records["r0"][-1] == "none"
    assert engine.stats()["draft_tokens_total"] < TOKENS / 4


def test_after_a_while_it_is_tried_again_and_goes_on_when_it_pays() -> None:
    turned = 200
    spent, _, records = timed(measured, lambda at: 0.0 if at < turned else 0.97)
    assert records["r0"][0] != "none"
    assert "none" in records["r0"]
    assert records["r0"][-1] != "none"
    ideal = turned + (TOKENS - turned) / 3
    print(f"{spent:.0f} s, {TOKENS} without drafts, about {ideal:.0f} knowing when")
    assert spent < 0.8 * TOKENS


def test_a_large_batch_leaves_no_time_to_guess() -> None:
    """Where a step's time is that of its tokens, 16 sequences do best without drafts."""

    def seconds(tokens: int) -> float:
        return max(8.0, float(tokens))

    alone = timed(seconds, lambda _: 0.75)[0]
    assert alone < 0.45 * TOKENS * 8
    together, engine, _ = timed(seconds, lambda _: 0.75, sequences=16)
    assert together < 1.05 * TOKENS * 16
    assert engine.stats()["draft_tokens_total"] < 0.1 * TOKENS * 16


def test_plain_steps_are_timed_again_now_and_then() -> None:
    sizes: list[int] = []
    device = Device(measured)
    guess = Guess(device, lambda _: 0.97)
    device.before_step = lambda batch: sizes.append(len(batch.token_ids))
    engine = toy_engine(
        Sarathi(), runner=device, clock=lambda: device.now_s, speculation=Speculation(guess, most_tokens=2)
    )
    request = token_request("r0", (0,), TOKENS)
    guess.answers["r0"] = [0, *answer(request), *[0] * 20]
    engine.add(request)
    while engine.has_work:
        engine.step()
    drafted = [i for i, size in enumerate(sizes) if size > 1]
    plain = [i for i, size in enumerate(sizes[:-3]) if size == 1]
    assert len(drafted) > 100
    assert 2 <= len(plain) <= 5


def test_costs_are_interpolated_and_never_fall() -> None:
    costs = StepCosts()
    assert costs.seconds(5) == 0.0
    assert not costs.knows(1)
    costs.observe(2, 1.0)
    assert costs.knows(2)
    assert not costs.knows(1)
    assert costs.seconds(1) == costs.seconds(2) == costs.seconds(50) == 1.0
    costs.observe(10, 2.0)
    assert costs.seconds(6) == pytest.approx(1.5)
    assert costs.seconds(18) == pytest.approx(3.0)
    costs.observe(12, 1.0)
    assert costs.seconds(12) == 2.0


def test_one_disturbed_step_changes_no_cost() -> None:
    costs = StepCosts()
    for seconds in (1.0, 1.1, 50.0, 0.9, 1.0):
        costs.observe(1, seconds)
    assert costs.seconds(1) == 1.0
    for _ in range(3):
        costs.observe(1, 2.0)
    assert costs.seconds(1) == 2.0


def test_large_steps_are_put_together() -> None:
    costs = StepCosts()
    for tokens in range(200, 240):
        costs.observe(tokens, 3.0)
    assert costs.seconds(220) == 3.0
    assert len(costs._samples) < 5


def test_a_sequence_whose_drafts_lose_is_seldom_thought_about() -> None:
    looked: list[int] = []

    class Watched(ArbitrarySpeculator):
        def options(self, rates: Sequence[float], most_tokens: int) -> Sequence[DraftPlan]:
            looked.append(most_tokens)
            return chain_options(rates[0], most_tokens, (1, 2, 4))

    costs = StepCosts()
    for tokens in (1, 2, 4, 8):
        costs.observe(tokens, 0.01 * tokens)  # a drafted token costs a whole step
    controller = Controller(Watched(0, 97), costs, most_tokens=8)
    standing = Standing()
    plans = [controller.choose([standing], [Room(8, 8)], 1, 8)[0] for _ in range(400)]
    probes = [i for i, plan in enumerate(plans) if plan is not None]
    assert probes == [15, 47, 111, 239]  # after 16 rounds, then 32, 64 and 128
    assert len(looked) < 400 / 7
