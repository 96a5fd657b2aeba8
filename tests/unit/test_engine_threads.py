"""The number of threads follows what the machine's other work allows. The clock is virtual."""

from __future__ import annotations

from collections.abc import Mapping

from pentad.execution.threads import ThreadChoice

QUIET = {2: 0.020, 1: 0.032}
BUSY = {2: 0.800, 1: 0.035}
"""Threads that sleep at their barriers beside another program."""
SHARED = {2: 0.050, 1: 0.035}
"""Threads that spin and yield there."""


class Machine:
    """Runs steps whose time depends on the thread count, and keeps the counts used."""

    def __init__(self, most: int = 2) -> None:
        self.now_s = 0.0
        self.used: list[int] = []
        self.threads = 0
        self.choice = ThreadChoice(most, self._apply, lambda: self.now_s)

    def _apply(self, count: int) -> None:
        self.threads = count

    def run(self, seconds: Mapping[int, float], until_s: float, tokens: int = 1) -> list[int]:
        """Steps until that instant; the thread counts they used."""
        first = len(self.used)
        while self.now_s < until_s:
            with self.choice.step(tokens) as count:
                assert count == self.threads
                self.now_s += seconds[count]
                self.used.append(count)
        return self.used[first:]


def test_a_quiet_machine_gets_all_threads_but_for_rare_trials() -> None:
    used = Machine().run(QUIET, 60)
    assert 4 <= used.count(1) <= 40
    assert len(used) > 2900


def test_another_program_is_noticed_at_its_first_slow_step() -> None:
    machine = Machine()
    machine.run(QUIET, 10)
    used = machine.run(BUSY, 30)
    assert used.count(2) <= 1 + 4 * 8
    assert set(used[-10:]) == {1}


def test_a_machine_that_is_busy_from_the_start_ends_with_fewer_threads() -> None:
    used = Machine().run(BUSY, 20)
    assert set(used[-10:]) == {1}


def test_when_the_other_program_ends_all_threads_return_within_two_seconds() -> None:
    machine = Machine()
    machine.run(QUIET, 5)
    assert set(machine.run(SHARED, 100)[-10:]) == {1}
    machine.run(QUIET, machine.now_s + 2)
    assert set(machine.run(QUIET, machine.now_s + 0.5)) == {2}


def test_where_trials_are_dear_they_are_rare() -> None:
    machine = Machine()
    machine.run(QUIET, 5)
    machine.run(BUSY, 30)
    assert machine.run(BUSY, 130).count(2) <= 8
    machine.run(QUIET, machine.now_s + 34)
    assert set(machine.run(QUIET, machine.now_s + 0.5)) == {2}


def test_a_single_hiccup_changes_nothing() -> None:
    machine = Machine()
    machine.run(QUIET, 5)
    machine.run({2: 1.0, 1: 0.032}, machine.now_s + 0.5)
    machine.run(QUIET, machine.now_s + 1)
    assert set(machine.run(QUIET, machine.now_s + 0.5)) == {2}


def test_steps_that_grow_are_compared_fairly() -> None:
    machine = Machine()
    for step in range(2000):
        grown = 1 + step / 500
        machine.run({count: grown * seconds for count, seconds in QUIET.items()}, machine.now_s + 0.001)
    assert machine.used[-500:].count(2) >= 480


def test_steps_of_unequal_size_are_not_compared() -> None:
    machine = Machine()
    for step in range(500):
        tokens = 4 + step % 4
        machine.run(QUIET, machine.now_s + 0.001, tokens=tokens)
    assert set(machine.used) == {2}


def test_texts_of_many_lengths_cost_no_more_trials_than_one() -> None:
    machine = Machine()
    for text in range(400):
        length = 1 + 1.5 * (text * 7 % 10) / 10
        machine.run({2: 0.080, 1: 0.150}, machine.now_s + 0.001, tokens=256)
        machine.run({count: length * s for count, s in QUIET.items()}, machine.now_s + 0.5)
    assert machine.used.count(1) <= 0.02 * len(machine.used)


def test_large_and_small_steps_are_judged_apart() -> None:
    machine = Machine()
    machine.run(BUSY, 20, tokens=1)
    assert machine.run(QUIET, machine.now_s + 2, tokens=512).count(2) >= 70


def test_one_core_has_nothing_to_try() -> None:
    assert set(Machine(most=1).run({1: 0.03}, 10)) == {1}
