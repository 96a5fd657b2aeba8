"""The process of one job: the function and its arguments on standard input, the result on standard output.

Its argument is the process id of the job server: a server that was killed is told to have lost its jobs, so
none of them may go on without it. The server starts it as the leader of a process group.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time

from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import ToolContext
from pentad.agent.tools.files import ToolFiles
from pentad.agent.tools.invocation import as_text, parse
from pentad.json_text import parse_json

_LOOK_S = 0.5


def _end_with(server: int) -> None:
    """Ends this process and all of its group soon after the job server has died."""

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(_LOOK_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """0 with the result; 1 with what went wrong as the last line on standard error."""
    _end_with(int(sys.argv[1]))
    asked = parse_json(sys.stdin.read())
    # What the function prints must not pass for its result.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reference = asked["function"]
    files = ToolFiles()
    files.allow(AgentSpec(name="job", tools=(reference,)))
    tool = files.tool(reference)
    context = ToolContext(
        key="job", run_id="job", tenant="job", agent="job", deadline_s=time.monotonic() + 1e9
    )

    async def work() -> str:
        return as_text(await tool.call(parse(tool, json.dumps(asked["arguments"])), context))

    try:
        result = asyncio.run(work())
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}\n")
        return 1
    out.write(result)
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
