"""The process that recognizes sounds: one at a time, within limits, gone when nobody waits."""

from __future__ import annotations

import asyncio
import importlib.util
import pathlib
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import psutil
import pytest

from pentad.application.config import Settings
from pentad.application.wiring import _transcribers
from pentad.errors import BackendFailed, BadModelFile, Incompatible, InvalidRequest, Overloaded
from pentad.model.audio.transcript import AudioJob, Segment, SoundInfo, Told
from pentad.model.audio.whisper import NEEDED_FILES, AudioLimits, WhisperTranscriber

pytestmark = pytest.mark.thorough

SCRIPT = """
import json, sys, time
def tell(**line):
    sys.stdout.write(json.dumps(line) + "\\n"); sys.stdout.flush()
SEGMENT = dict(seek=0, start=0.0, end=1.0, tokens=[], temperature=0.0, avg_logprob=0.0, compression_ratio=1.0,
               no_speech_prob=0.0, words=[])
if "broken" in sys.argv[1]:
    tell(error="no weights"); sys.exit()
tell(ready=True)
for line in sys.stdin.buffer:
    job = json.loads(line)
    data = sys.stdin.buffer.read(job["payload"])
    if data == b"bad":
        tell(error="it holds no sound"); continue
    if data == b"die":
        sys.exit(1)
    tell(info=dict(language=job["language"] or "en", duration_s=len(data) / 10))
    for i in range(3):
        tell(segment=dict(SEGMENT, id=i, text=" " + job["prompt"] + str(len(data))))
        if data == b"slow":
            time.sleep(60)
    tell(done=True)
"""
BIG = 3 << 20


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Callable[..., WhisperTranscriber]:
    def made(name: str = "model", **limits: Any) -> WhisperTranscriber:
        script, folder = tmp_path / "worker.py", tmp_path / name
        script.write_text(SCRIPT)
        folder.mkdir(exist_ok=True)
        for file in NEEDED_FILES:
            (folder / file).write_text("{}")
        return WhisperTranscriber(
            folder, limits=AudioLimits(**limits), command=(sys.executable, "-I", str(script))
        )

    return made


async def all_of(heard: WhisperTranscriber, data: bytes, **fields: Any) -> list[Told]:
    async with aclosing(heard.transcribe(AudioJob(data=data, **fields))) as told:
        return [one async for one in told]


def running(work: Callable[[], Awaitable[None]], heard: WhisperTranscriber) -> None:
    async def whole() -> None:
        try:
            await work()
        finally:
            await heard.close()

    asyncio.run(whole())


async def gone(pid: int | None) -> None:
    for _ in range(500):
        if not psutil.pid_exists(pid or 0) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} lives on")


def test_a_sound_is_told_in_order_and_the_process_is_kept(make: Callable[..., WhisperTranscriber]) -> None:
    heard = make()

    async def work() -> None:
        assert heard.pid is None, "it starts with the first sound"
        info, *segments = await all_of(heard, bytes(BIG), language="pt", prompt="p")
        assert info == SoundInfo(language="pt", duration_s=BIG / 10)
        assert [one.text for one in segments if isinstance(one, Segment)] == [f" p{BIG}"] * 3
        pid = heard.pid
        await all_of(heard, b"again")
        assert heard.pid == pid

    running(work, heard)


def test_a_bad_sound_costs_its_sender_an_error_and_nobody_the_process(
    make: Callable[..., WhisperTranscriber],
) -> None:
    heard = make()

    async def work() -> None:
        await all_of(heard, b"first")
        pid = heard.pid
        with pytest.raises(InvalidRequest, match="it holds no sound"):
            await all_of(heard, b"bad")
        assert len(await all_of(heard, b"next")) == 4
        assert heard.pid == pid

    running(work, heard)


@pytest.mark.parametrize("data", [b"die", b"slow"])
def test_what_takes_too_much_is_ended_and_the_next_is_served(
    data: bytes, make: Callable[..., WhisperTranscriber]
) -> None:
    heard = make(wall_s=5.0)

    async def work() -> None:
        await all_of(heard, b"first")
        pid = heard.pid
        with pytest.raises(InvalidRequest, match="takes more than 5 s or 2048 MiB"):
            await all_of(heard, data)
        await gone(pid)
        assert len(await all_of(heard, b"next")) == 4

    running(work, heard)


def test_closing_the_stream_ends_the_work(make: Callable[..., WhisperTranscriber]) -> None:
    heard = make()

    async def work() -> None:
        told = heard.transcribe(AudioJob(data=b"slow"))
        await anext(told)
        pid = heard.pid
        await told.aclose()
        await gone(pid)
        task = asyncio.create_task(all_of(heard, b"slow"))
        for _ in range(500):
            await asyncio.sleep(0.01)
            if heard.pid is not None:
                break
        pid = heard.pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(pid)
        assert len(await all_of(heard, b"next")) == 4

    running(work, heard)


def test_one_at_a_time_and_few_wait(make: Callable[..., WhisperTranscriber]) -> None:
    heard = make(waiting=1)

    async def work() -> None:
        first = heard.transcribe(AudioJob(data=b"slow"))
        await anext(first)
        second = asyncio.create_task(all_of(heard, b"second"))
        await asyncio.sleep(0.05)
        assert not second.done()
        with pytest.raises(Overloaded, match="1 sounds wait"):
            await all_of(heard, b"third")
        await first.aclose()
        assert len(await second) == 4

    running(work, heard)


def test_a_model_that_cannot_be_loaded_is_told(make: Callable[..., WhisperTranscriber]) -> None:
    heard = make("broken")

    async def work() -> None:
        with pytest.raises(BackendFailed, match="cannot be loaded: no weights"):
            await all_of(heard, b"x")

    running(work, heard)


def test_a_folder_without_a_tokenizer_is_refused_and_nothing_is_fetched(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadModelFile, match=r"lacks tokenizer\.json"):
        WhisperTranscriber(tmp_path, command=(sys.executable,))


def test_without_the_extra_the_start_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Incompatible, match=r"pip install 'pentad\[audio\]'"):
        _transcribers(Settings(transcription_model=tmp_path))
    assert _transcribers(Settings()) == {}
