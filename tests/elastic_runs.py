"""Simulated runs under the joint choice: the real ledger and the real choice, answers that are drawn."""

from __future__ import annotations

import random

from elastic_worlds import CLOUD, LARGE, SMALL, situation
from pentad.agent.budget import Amount, Ledger, carved
from pentad.errors import BudgetExceeded
from pentad.model.control.prediction import Option
from pentad.model.control.search import Weighing, decide
from pentad.types import Budget, Objective

ARMS = (SMALL, LARGE, CLOUD)


class Runs:
    """Runs one after the other; the worst excess over any budget is kept."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.tokens_over = 0
        self.money_over = 0.0
        self.partial = 0
        """Runs that their budget ended after at least one answer."""
        self.calls = 0

    def one(self) -> None:
        """A run of up to six steps, some in branches, with crashes, retries and sub-agents."""
        draw = self._draw
        budget = Budget(tokens=draw.randint(100, 6000), cost=draw.choice([None, draw.uniform(1e-4, 0.2)]))
        ledger, _ = self._run(Ledger(budget=budget), steps=draw.randint(1, 6), depth=0)
        self._check(ledger)

    def _check(self, ledger: Ledger) -> None:
        used, budget = ledger.committed, ledger.budget
        over = ledger.overdrawn
        self.tokens_over = max(self.tokens_over, used.tokens - (budget.tokens or 0), over.tokens)
        if budget.cost is not None:
            self.money_over = max(self.money_over, used.cost - budget.cost, over.cost)

    def _run(self, ledger: Ledger, steps: int, depth: int) -> tuple[Ledger, bool]:
        draw, answered = self._draw, 0
        prefer = draw.choice([None, "quality", "cost", "latency"])
        for step in range(steps):
            try:
                if depth == 0 and draw.random() < 0.15:
                    ledger = self._sub_run(ledger, step)
                    continue
                branches = draw.choice([1, 1, 1, 3])
                keys = [f"{step}.{n}" for n in range(branches)]
                for n, key in enumerate(keys):
                    ledger = self._reserved(ledger, key, prefer, steps - step - 1, branches - n)
                for key in keys:
                    ledger = self._settled(ledger, key)
                answered += 1
            except BudgetExceeded:
                self.partial += answered > 0
                return ledger.forfeit(), False
        return ledger, True

    def _sub_run(self, ledger: Ledger, step: int) -> Ledger:
        """A member's run in a part of what is left: held whole, then settled by what it used."""
        part = carved(ledger.left(), 0.5)
        held = Amount(tokens=part.tokens or 0, cost=part.cost or 0.0)
        ledger.check(held)
        ledger = ledger.hold(f"sub.{step}", held)
        inner, _ = self._run(Ledger(budget=part), steps=2, depth=1)
        self._check(inner)
        return ledger.settle(f"sub.{step}", inner.committed)

    def _reserved(self, ledger: Ledger, key: str, prefer: object, behind: int, sharing: int) -> Ledger:
        """The call as it is chosen for its part of what is left, reserved at its most."""
        left = ledger.left()
        part = Budget(
            tokens=None if left.tokens is None else left.tokens // sharing,
            cost=None if left.cost is None else left.cost / sharing,
        )
        aim = Objective(prefer=prefer)  # type: ignore[arg-type]
        drawn = self._draw.random()
        state = situation(arms=ARMS, objective=aim, budget=part, steps_behind=behind, draw=drawn)
        choice = decide(state, Weighing(trials=0.1))
        assert choice is not None
        option, most = choice.chosen.option, choice.chosen.prediction
        amount = Amount(tokens=most.most_tokens, cost=most.most_money)
        ledger.check(amount)
        self._option: dict[str, Option] = {**getattr(self, "_option", {}), key: option}
        self.calls += 1
        return ledger.hold(key, amount)

    def _settled(self, ledger: Ledger, key: str) -> Ledger:
        """The call ends, breaks and is tried again, or the process dies with it."""
        draw, option = self._draw, self._option[key]
        fate = draw.random()
        if key not in ledger.held:  # the process died with it
            return ledger
        if fate < 0.05:
            return ledger.forfeit()
        if fate < 0.15:  # broken after some tokens: what was held counts, and the call is made again
            held = ledger.held[key]
            ledger = ledger.settle(key, held)
            ledger.check(held)
            ledger = ledger.hold(key, held)
        completion = sum(draw.randint(1, option.max_tokens) for _ in range(option.way.samples))
        return ledger.settle(
            key,
            Amount(
                tokens=option.way.prompt_tokens + completion,
                cost=option.arm.price.at_most(option.way.prompt_tokens, completion),
            ),
        )
