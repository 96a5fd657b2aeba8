"""command_tool: a program as a tool, in a process group of its own that dies at the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from pentad.agent.tool_events import Effects
from pentad.agent.tools.base import InDoubt, Tool, ToolContext, Truncated
from pentad.errors import ToolFailed

_CHUNK = 65_536


def command_tool(
    name: str,
    command: Sequence[str],
    *,
    description: str,
    parameters: Mapping[str, Any],
    effects: Effects = "unkeyed",
    timeout_s: float = 30.0,
    max_result_bytes: int = 16_384,
) -> Tool:
    """The tool that runs `command`: arguments as JSON on standard input, result on standard output.

    No shell is involved. The program sees the call's idempotency key as PENTAD_TOOL_KEY. At the
    deadline, or when the run is cancelled, the whole process group is killed, so that a program
    that ignores signals or has forked leaves nothing behind. Output beyond a few times the cap is
    read and thrown away, so that memory stays bounded; the result's marker counts what was kept.
    """

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Truncated:
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, "PENTAD_TOOL_KEY": context.key},
            start_new_session=True,
        )
        try:
            output, complaint = await _talk(process, json.dumps(dict(arguments)).encode(), max_result_bytes)
            code = await process.wait()
        finally:
            await _end(process)
        if code < 0:
            raise InDoubt(f"{name!r} was killed by signal {-code}")
        if code:
            text = complaint.data.decode("utf-8", "replace").strip()[-500:]
            raise ToolFailed(f"{name!r} ended with code {code}: {text}")
        return output

    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        call=call,
        effects=effects,
        timeout_s=timeout_s,
        max_result_bytes=max_result_bytes,
    )


async def _talk(process: asyncio.subprocess.Process, data: bytes, most: int) -> tuple[Truncated, Truncated]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    output, complaint, _ = await asyncio.gather(
        _read(process.stdout, most), _read(process.stderr, 4096), _feed(process.stdin, data)
    )
    return output, complaint


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
