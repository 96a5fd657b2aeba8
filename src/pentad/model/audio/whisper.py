"""WhisperTranscriber: a Whisper model of CTranslate2's form, by faster-whisper, in a process of its own.

The process is a fresh interpreter and no fork, so that it inherits no threads, no locks and no sockets of
the server; it is started with the first sound, kept, and killed when a job takes too much or nobody waits
any more.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pathlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pentad.errors import BackendFailed, BadModelFile, Incompatible, InvalidRequest, Overloaded
from pentad.model.audio.transcript import AudioJob, Segment, SoundInfo, Told

_WORKER: Final = pathlib.Path(__file__).with_name("worker.py")
NEEDED_FILES: Final = ("model.bin", "config.json", "tokenizer.json")
"""Of the model's folder. Without its tokenizer the library would fetch another from a hub."""
_LINE_BYTES: Final = 1 << 20
"""Of one segment with its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """What one sound may take."""

    sound_s: float = 2 * 3600.0
    memory_bytes: int = 2 << 30
    """On top of the loaded model. Two hours decoded take 0.7 GB."""
    start_s: float = 300.0
    """Until the model is loaded."""
    wall_s: float = 3600.0
    """Until the last word, once it is this sound's turn."""
    waiting: int = 16
    """Sounds that wait while another one is recognized."""


class WhisperTranscriber:
    """See `Transcriber`.

    Args:
        folder: of the model, on this machine; nothing is ever fetched.
        threads: of the CPU.
        limits: of one sound.
        command: what runs the worker; None: this interpreter, isolated.

    Raises:
        Incompatible: faster-whisper is not installed.
        BadModelFile: the folder is no such model.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        threads: int | None = None,
        limits: AudioLimits | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        if command is None and importlib.util.find_spec("faster_whisper") is None:
            raise Incompatible(
                "sounds are recognized by faster-whisper, which is not installed",
                hint="install it: pip install 'pentad[audio]'",
                param="transcription_model",
            )
        missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
        if missing:
            raise BadModelFile(
                f"{str(folder)!r} is no Whisper model of CTranslate2's form: it lacks {', '.join(missing)}",
                hint="name a folder made by ct2-transformers-converter, with its tokenizer.json",
            )
        self._limits = limits = limits or AudioLimits()
        count = str(threads or os.cpu_count() or 1)
        own = command or (sys.executable, "-I", str(_WORKER))
        self._command = (*own, str(folder.resolve()), count, str(limits.memory_bytes), str(limits.sound_s))
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: Process | None = None
        self._ended: list[Process] = []
        """Killed and not reaped yet."""

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    async def transcribe(self, job: AudioJob) -> AsyncGenerator[Told, None]:
        """See `Transcriber.transcribe`."""
        if self._waiting >= self._limits.waiting:
            raise Overloaded(
                f"{self._waiting} sounds wait to be recognized already", retry_after_s=10.0, hint="try later"
            )
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        whole = False
        try:
            async with aclosing(self._answers(job)) as answers:
                async for told in answers:
                    yield told
            whole = True
        except InvalidRequest:
            whole = True  # the process has said what is wrong, or is ended already
            raise
        finally:
            if not whole:  # it is in the middle of something that nobody wants
                self._kill()
            self._turn.release()

    async def close(self) -> None:
        """Ends the process. A later sound starts another."""
        self._kill()
        await asyncio.gather(*(process.wait() for process in self._ended))
        self._ended.clear()

    async def _answers(self, job: AudioJob) -> AsyncGenerator[Told, None]:
        process = await self._started()
        assert process.stdin is not None
        until_s = asyncio.get_running_loop().time() + self._limits.wall_s
        try:
            async with asyncio.timeout_at(until_s):
                process.stdin.write(_head(job))
                process.stdin.write(job.data)
                await process.stdin.drain()
            while not (line := await self._line(process, until_s)).get("done"):
                if "error" in line:
                    raise _refused(line["error"])
                if "info" in line:
                    yield msgspec.convert(line["info"], SoundInfo)
                else:
                    yield msgspec.convert(line["segment"], Segment)
        except (TimeoutError, OSError, EOFError):
            self._kill()
            raise InvalidRequest(
                f"recognizing the sound takes more than {self._limits.wall_s:g} s "
                f"or {self._limits.memory_bytes >> 20} MiB beside the model",
                hint="send it in shorter parts",
                param="file",
            ) from None

    async def _started(self) -> Process:
        """The process with the model loaded. Raises BackendFailed."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True, limit=_LINE_BYTES
        )
        try:
            line = await self._line(process, asyncio.get_running_loop().time() + self._limits.start_s)
        except (TimeoutError, OSError, EOFError):
            line = {"error": f"it was not loaded within {self._limits.start_s:g} s, or the process ended"}
        except BaseException:
            self._kill()
            raise
        if not line.get("ready"):
            self._kill()
            raise BackendFailed(f"the model for sounds cannot be loaded: {line.get('error')}")
        return process

    @staticmethod
    async def _line(process: Process, until_s: float) -> dict[str, Any]:
        """The next line. Raises EOFError when the process has ended, TimeoutError at the loop's time."""
        assert process.stdout is not None
        async with asyncio.timeout_at(until_s):
            line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        found: dict[str, Any] = json.loads(line)
        return found

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._ended = [one for one in self._ended if one.returncode is None]
        if process is not None:
            self._ended.append(process)
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is None:
                process.kill()


def _head(job: AudioJob) -> bytes:
    """The job's line."""
    line = {
        "task": job.task,
        "language": job.language,
        "prompt": job.prompt,
        "temperature": job.temperature,
        "words": job.words,
        "quiet": job.skip_silence,
        "payload": len(job.data),
    }
    return json.dumps(line).encode() + b"\n"


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the sound cannot be recognized: {reason}",
        hint="send speech as WAV, MP3, FLAC, Ogg, M4A or WebM",
        param="file",
    )
