"""Interpreters: processes started ahead are taken first, and nobody is left behind."""

from __future__ import annotations

import sys

from pentad.execution.worker.interpreters import Interpreters

WAITS = (sys.executable, "-c", "import sys; sys.stdin.read()")


def test_those_started_ahead_are_taken_first_then_new_ones() -> None:
    with Interpreters(WAITS, ahead=1) as interpreters:
        (ahead,) = interpreters._ready
        first, second = interpreters.take(), interpreters.take()
        assert first is ahead
        assert second is not ahead
        for process in (first, second):
            assert process.poll() is None
            process.release()  # its input ends, and so does it
            assert process.wait(10) == 0


def test_one_that_ended_meanwhile_is_not_given_out() -> None:
    with Interpreters((sys.executable, "-c", ""), ahead=1) as interpreters:
        ended = interpreters._ready[0]
        ended.wait(10)
        taken = interpreters.take()
        assert taken is not ended
        taken.release()
        taken.wait(10)


def test_who_was_not_taken_is_ended() -> None:
    with Interpreters(WAITS, ahead=2) as interpreters:
        left = list(interpreters._ready)
    assert [process.poll() for process in left] == [-9, -9]
