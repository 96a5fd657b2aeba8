"""Blocks on disk: found again by the next engine and server, refused when they are not what was written."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from pentad.execution.engine import Engine
from pentad.execution.kv.store import _PAGE, MappedStore
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request
from pentad.testing.runners import ToyRunner
from pentad.types import Hints, RunContext

BLOCK = 4
PROMPT = tuple(7 * i % 97 for i in range(41))
TOOL = RunContext(run_id="r", hints=Hints(next="tool"))
SLOT = 4096 + 64


class Server:
    """An engine with a store in a file; `stop` ends it as a server's end does, `kill` as a kill."""

    def __init__(self, path: pathlib.Path, *, slots: int = 64, blocks: int = 24, identity: str = "m") -> None:
        self.runner = ToyRunner(num_blocks=blocks, block_size=BLOCK)
        most = 2 * _PAGE + slots * SLOT
        self.store = MappedStore(path, self.runner, most_bytes=most, identity=identity)
        self.engine = Engine(
            self.runner,
            Sarathi(),
            limits=EngineLimits(max_batch_tokens=64, max_sequences=4),
            kv_store=self.store,
            check_invariants=True,
        )

    def ask(self, prompt: tuple[int, ...] = PROMPT, context: RunContext = TOOL, **more: Any) -> Answer:
        request = token_request("q/0", prompt, 4, context=context, **more)
        answer = run(self.engine, request)[request.id]
        self.store.check_integrity()
        return answer

    def kill(self) -> None:
        os.close(self.store._file)
        self.store._map = None

    def stop(self) -> None:
        self.engine.close()


def cached(answer: Answer) -> int:
    assert answer.stats is not None
    return answer.stats.cached_tokens


@pytest.mark.row("phase-kv-mmap", "mechanism")
@pytest.mark.row("ag-kv-persist", "mechanism")
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_session_goes_on_behind_a_restart_from_the_file_with_the_same_tokens(
    tmp_path: pathlib.Path, end: str
) -> None:
    first = Server(tmp_path / "kv")
    before = first.ask()
    longer = (*PROMPT, *before.tokens, 5, 6)
    getattr(first, end)()
    second = Server(tmp_path / "kv")
    answer = second.ask(longer)
    plain = Server(tmp_path / "other").ask(longer)
    assert answer.tokens == plain.tokens
    assert cached(plain) == 0
    assert cached(answer) >= 0.85 * len(longer)
    assert second.runner.tokens_computed <= len(longer) - cached(answer) + 4


@pytest.mark.row("ag-kv-persist", "mechanism")
def test_what_the_pool_has_evicted_is_loaded_and_not_computed(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path / "kv", blocks=16)
    first = server.ask()
    server.ask(tuple(3 + i % 90 for i in range(50)), RunContext())
    again = server.ask()
    assert again.tokens == first.tokens
    assert cached(again) == 40
    assert server.store.loaded > 0


@pytest.mark.row("ag-kv-persist", "mechanism")
def test_a_block_that_the_pool_gives_up_before_it_was_stored_is_stored_then(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored behind a step here, as on a machine that never rests."""
    server = Server(tmp_path / "kv", blocks=16)
    monkeypatch.setattr(type(server.engine._kv), "save", lambda *_, **__: None)
    first = server.ask()
    assert server.store.saved == 0
    server.ask(tuple(3 + i % 90 for i in range(50)), RunContext())
    assert server.store.saved > 0
    again = server.ask()
    assert again.tokens == first.tokens
    assert cached(again) == 40


def test_every_flipped_bit_is_noticed_and_computed_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kv"
    server = Server(path)
    expected = server.ask().tokens
    data = server.store._data
    server.stop()
    whole = path.read_bytes()
    for place in (data, data + 31, data + 4096 + 7, data + 9 * 4096, _PAGE + 3, _PAGE + 20, _PAGE + 64 + 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        server = Server(path)
        answer = server.ask()
        assert answer.tokens == expected, place
        assert cached(answer) < 40, place
        server.stop()


def test_a_file_of_another_model_or_cut_short_is_no_source(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kv"
    server = Server(path)
    expected = server.ask().tokens
    server.stop()
    other = Server(path, identity="other")
    assert cached(other.ask()) == 0
    os.truncate(path, _PAGE + 10)
    answer = other.ask((*PROMPT[:-1], 9))
    assert answer.stats is not None
    other.kill()
    assert Server(path).ask().tokens == expected


def test_a_full_disk_while_storing_loses_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Server(tmp_path / "plain").ask().tokens
    server = Server(tmp_path / "kv")

    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert server.ask().tokens == expected
    assert cached(server.ask()) == 40, "the pool has it still"
    assert (server.store.saved, server.store.refused > 0) == (0, True)
    server.stop()


def test_the_file_keeps_to_its_bytes_and_forgets_the_ends_of_the_oldest_texts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kv"
    server = Server(path, slots=12, blocks=16)
    server.ask()
    server.ask(tuple(3 + i % 90 for i in range(20)))
    assert len(server.store._slots) <= 12
    assert path.stat().st_size <= 2 * _PAGE + 12 * SLOT
    server.stop()
    server = Server(path, slots=12, blocks=16)
    assert cached(server.ask(tuple(3 + i % 90 for i in range(20)), RunContext())) == 16
    assert 0 < cached(server.ask()) < 40, "the beginning of the older text is there, its end is not"


def test_tenants_find_nothing_of_each_other_and_who_announces_nothing_is_not_stored(
    tmp_path: pathlib.Path,
) -> None:
    server = Server(tmp_path / "kv")
    server.ask(context=RunContext())
    assert server.store.saved == 0
    server.ask()
    server.stop()
    server = Server(tmp_path / "kv")
    assert cached(server.ask(tenant="other")) == 0


def test_one_process_has_the_file(tmp_path: pathlib.Path) -> None:
    Server(tmp_path / "kv")
    with pytest.raises(OSError, match="temporarily unavailable"):
        Server(tmp_path / "kv")
