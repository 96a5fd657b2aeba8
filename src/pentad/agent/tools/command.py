"""command_tool: a program as a tool, in a process group of its own that dies at the deadline."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pentad.agent.tool_events import Effects
from pentad.agent.tools.base import InDoubt, Tool, ToolContext, Truncated
from pentad.agent.tools.process import run_process
from pentad.errors import ToolFailed


def command_tool(
    name: str,
    command: Sequence[str],
    *,
    description: str,
    parameters: Mapping[str, Any],
    effects: Effects = "unkeyed",
    timeout_s: float = 30.0,
    max_result_bytes: int = 16_384,
    at_once: int | None = None,
) -> Tool:
    """The tool that runs `command`: arguments as JSON on standard input, result on standard output.

    No shell is involved. The program sees the call's idempotency key as PENTAD_TOOL_KEY. At the
    deadline, or when the run is cancelled, the whole process group is killed, so that a program
    that ignores signals or has forked leaves nothing behind. Output beyond a few times the cap is
    read and thrown away, so that memory stays bounded; the result's marker counts what was kept.
    """

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Truncated:
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        output, complaint, code = await run_process(
            command,
            env={**environment, "PENTAD_TOOL_KEY": context.key},
            output_bytes=max_result_bytes,
            data=json.dumps(dict(arguments)).encode(),
        )
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
        at_once=at_once,
    )
