"""TenantWorkers: whoever brings much waits for itself, not others for it."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from pentad.errors import Overloaded
from pentad.model.tenant_workers import TenantWorkers

WAIT_S = 30


def test_a_tenant_with_much_work_holds_up_another_by_one_piece_at_most() -> None:
    workers = TenantWorkers("test", threads=1)
    done: list[str] = []
    go = threading.Event()

    def piece(name: str) -> None:
        go.wait(WAIT_S)
        done.append(name)

    many = [workers.submit("loud", piece, f"loud {i}") for i in range(30)]
    few = [workers.submit("quiet", piece, f"quiet {i}") for i in range(2)]
    go.set()
    for future in [*many, *few]:
        future.result(WAIT_S)
    assert done[:5] == ["loud 0", "quiet 0", "loud 1", "quiet 1", "loud 2"]


def test_one_tenant_never_has_all_threads() -> None:
    workers = TenantWorkers("test", threads=2)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(WAIT_S)

    first, second = workers.submit("loud", hold), workers.submit("loud", hold)
    assert held.wait(WAIT_S)
    assert workers.submit("quiet", lambda: "at once").result(WAIT_S) == "at once"
    assert not first.done()
    assert not second.running()
    go.set()
    second.result(WAIT_S)


def test_what_is_given_up_is_not_begun_and_makes_room() -> None:
    workers = TenantWorkers("test", threads=1, max_waiting=2)
    held, go = threading.Event(), threading.Event()

    def hold() -> str:
        held.set()
        go.wait(WAIT_S)
        return "held"

    begun: list[int] = []
    first: Future[str] = workers.submit("a", hold)
    assert held.wait(WAIT_S)
    waiting = [workers.submit("a", begun.append, i) for i in range(2)]
    with pytest.raises(Overloaded, match="2 requests of this tenant wait"):
        workers.submit("a", begun.append, 2)
    other = workers.submit("b", begun.append, 9)
    assert waiting[0].cancel()
    last = workers.submit("a", begun.append, 3)
    go.set()
    assert first.result(WAIT_S) == "held"
    for future in (waiting[1], other, last):
        future.result(WAIT_S)
    assert sorted(begun) == [1, 3, 9]


def test_an_error_reaches_whoever_waits_and_ends_no_thread() -> None:
    workers = TenantWorkers("test", threads=1)

    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        workers.submit("a", fail).result(WAIT_S)
    assert workers.submit("a", lambda: 1).result(WAIT_S) == 1
