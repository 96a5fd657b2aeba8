"""Functions for the job server's tests."""

from __future__ import annotations

import os
import time

from pentad.agent.tools.functions import tool
from pentad.errors import ToolFailed


@tool(effects="none")
def burn(cpu_s: float) -> str:
    """Computes for so many seconds of processor time."""
    total, until_s = 0, time.process_time() + cpu_s
    while time.process_time() < until_s:
        total += sum(range(1000))
    return f"burned {cpu_s:g} s in process {os.getpid()}"


@tool
def note(file: str, line: str) -> str:
    """Appends a line to a file."""
    print("this is no result")
    with open(file, "a", encoding="utf-8") as out:
        out.write(f"{line}\n")
    return f"noted {line}"


@tool(effects="none")
def hang(file: str) -> str:
    """Says that it began, and never ends."""
    with open(file, "w", encoding="utf-8") as out:
        out.write(str(os.getpid()))
    time.sleep(3600)
    return ""


@tool(effects="none")
def refuse(why: str) -> str:
    """Fails."""
    raise ToolFailed(why)
