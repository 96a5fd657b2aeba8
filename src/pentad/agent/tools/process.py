"""run_process: a program in a process group of its own, its outputs read with bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from pentad.agent.tools.base import Truncated

_CHUNK = 65_536


async def run_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    output_bytes: int,
    errors_bytes: int = 4096,
    data: bytes = b"",
    pass_fds: Sequence[int] = (),
) -> tuple[Truncated, Truncated, int]:
    """What the program wrote on its two outputs, and its exit code (negative: the signal that ended it).

    When the task is cancelled, and when the program ends, its whole process group is killed, so that one
    that ignores signals or has forked leaves nothing behind. Output beyond the caps is read and thrown
    away.

    Args:
        data: its standard input.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        output, errors, _ = await asyncio.gather(
            _read(process.stdout, output_bytes),
            _read(process.stderr, errors_bytes),
            _feed(process.stdin, data),
        )
        return output, errors, await process.wait()
    finally:
        await _end(process)


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _read(stream: asyncio.StreamReader, most: int) -> Truncated:
    kept, total = bytearray(), 0
    while chunk := await stream.read(_CHUNK):
        kept += chunk[: max(0, most + 4 - len(kept))]  # 4: so that the cut can fall between characters
        total += len(chunk)
    return Truncated(data=bytes(kept), total_bytes=total)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of the process group and gives the pipes back."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # A grandchild in a session of its own may hold the pipes open; asyncio would wait for it.
    process._transport.close()  # type: ignore[attr-defined]
