"""The number of threads follows what the machine's other work allows. The clock is virtual."""

from __future__ import annotations

from collections.abc import Mapping

from pentad.execution.threads import ThreadChoice

QUIET = {2: 0.020, 1: 0.032}
BUSY = {2: 0.800, 1: 0.035}


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
    assert 2 <= used.count(1) <= 8
    assert len(used) > 2900


def test_another_program_costs_one_slow_step_and_then_rare_trials() -> None:
    machine = Machine()
    machine.run(QUIET, 10)
    used = machine.run(BUSY, 70)
    assert used.index(1) <= 2
    assert used.count(2) <= 8


def test_a_machine_that_is_busy_from_the_start_ends_with_fewer_threads() -> None:
    used = Machine().run(BUSY, 60)
    assert set(used[6:20]) == {1}
    assert used.count(2) <= 12


def test_when_the_other_program_ends_all_threads_return_within_the_longest_wait() -> None:
    machine = Machine()
    machine.run(QUIET, 5)
    machine.run(BUSY, 100)
    machine.run(QUIET, 133)
    assert machine.run(QUIET, 134).count(2) >= 40


def test_a_single_hiccup_is_forgotten_after_a_second() -> None:
    machine = Machine()
    machine.run(QUIET, 5)
    machine.run({2: 1.0, 1: 0.032}, machine.now_s + 0.5)
    assert machine.run(QUIET, machine.now_s + 0.5).count(1) >= 10
    machine.run(QUIET, machine.now_s + 1)
    assert machine.run(QUIET, machine.now_s + 1).count(2) >= 40


def test_large_and_small_steps_are_judged_apart() -> None:
    machine = Machine()
    machine.run(BUSY, 20, tokens=1)
    assert machine.run(QUIET, machine.now_s + 2, tokens=512).count(2) >= 80


def test_one_core_has_nothing_to_try() -> None:
    assert set(Machine(most=1).run({1: 0.03}, 10)) == {1}
