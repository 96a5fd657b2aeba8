"""Programs judged in a sandbox: what they print for an input, within a time."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass

from pentad.agent.tools.sandbox.base import Sandbox, Snippet
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.registry import FAMILIES

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_START_S = 10.0
"""What starting a sandbox may take on a busy machine, beside the program's own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a program."""

    ended: bool
    """False where it took too long."""
    code: int = 0
    output: str = ""
    errors: str = ""


def program_of(answer: str) -> str:
    """The last fenced block of an answer; all of it where there is none."""
    blocks = _FENCED.findall(answer)
    return str(blocks[-1]) if blocks else answer


async def prints(program: str, given: str, *, time_s: float, output_bytes: int = 1 << 20) -> Ran:
    """Runs a Python program in the sandbox that is taken where nobody chooses.

    Args:
        given: what it reads from standard input.
        time_s: of the processor; it has some time on the clock besides, to start.

    Raises Incompatible where this machine has no sandbox.
    """
    name = FAMILIES["sandbox"].baseline
    box: Sandbox = build("sandbox", Choice(name=name, options={"cpu_s": max(1, math.ceil(time_s))}))
    if why := await box.missing():
        raise Incompatible(
            f"programs are judged in the sandbox {name!r}, which does not run here: {why}",
            hint="install bubblewrap",
        )
    fed = f"import io, sys; sys.stdin = io.TextIOWrapper(io.BytesIO({given.encode()!r}), 'utf-8')\n{program}"
    snippet = Snippet(language="python", text=fed, key="eval", output_bytes=output_bytes)
    try:
        async with asyncio.timeout(time_s + _START_S):
            done = await box.run(snippet)
    except TimeoutError:
        return Ran(ended=False)
    output, errors = (part.data.decode("utf-8", "replace") for part in (done.output, done.errors))
    return Ran(ended=True, code=done.code, output=output, errors=errors)
