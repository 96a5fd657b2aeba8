"""python and shell: code that the model writes, run in the agent's sandbox."""

from __future__ import annotations

import pathlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices, Truncated
from pentad.agent.tools.sandbox.base import Finished, Language, Sandbox, Snippet, check
from pentad.choice import Choice
from pentad.choice import build as build_choice
from pentad.errors import InvalidRequest, ToolFailed
from pentad.ranges import in_range

_MIB = 1 << 20
_PYTHON = "Runs a Python program and returns what it prints. Each call starts afresh, with nothing installed."
_SHELL = "Runs a shell script and returns what it prints. Each call starts afresh, in an empty folder."


def build_python(
    services: ToolServices,
    *,
    folder: str = "",
    network: bool = False,
    timeout_s: float = 20.0,
    max_result_bytes: int = 16_384,
) -> Tool:
    """The tool that runs Python.

    Args:
        folder: its working folder, read and written by the code; empty gives each call an empty one.
        network: whether the code has this machine's network.
        timeout_s: for one call; then all that it started is killed.
        max_result_bytes: of what it prints; the rest is cut, with a marker.
    """
    options = _Options(folder, network, timeout_s, max_result_bytes)
    example = Example(
        task="add the numbers from 1 to 100", arguments={"code": "print(sum(range(1, 101)))"}, result="5050"
    )
    return _tool(
        "python", "A whole program; print what you want to know", _PYTHON, services, options, example
    )


def build_shell(
    services: ToolServices,
    *,
    folder: str = "",
    network: bool = False,
    timeout_s: float = 20.0,
    max_result_bytes: int = 16_384,
) -> Tool:
    """The tool that runs shell scripts.

    Args:
        folder: its working folder, read and written by the code; empty gives each call an empty one.
        network: whether the code has this machine's network.
        timeout_s: for one call; then all that it started is killed.
        max_result_bytes: of what it prints; the rest is cut, with a marker.
    """
    options = _Options(folder, network, timeout_s, max_result_bytes)
    example = Example(task="tell the date", arguments={"code": "date"})
    return _tool("shell", "A script for sh", _SHELL, services, options, example)


class _Options:
    """What the agent file says of a code tool, checked."""

    def __init__(self, folder: str, network: bool, timeout_s: float, max_result_bytes: int) -> None:
        in_range("timeout_s", timeout_s, above=0)
        in_range("max_result_bytes", max_result_bytes, least=1, most=_MIB)
        if folder and not pathlib.Path(folder).is_dir():
            raise InvalidRequest(
                f"code cannot work in {folder!r}, which is no folder", hint="make it", param="tool_options"
            )
        self.folder, self.network = folder, network
        self.timeout_s, self.max_result_bytes = timeout_s, max_result_bytes


def runner_in(chosen: Choice, usual: Snippet) -> Callable[[str, ToolContext], Awaitable[Truncated | str]]:
    """Runs texts in a sandbox, each as `usual` but for its text and key; what is told of it comes back.

    Raises InvalidRequest where the sandbox cannot run such snippets; a call raises ToolFailed where it
    cannot run on this machine.
    """
    sandbox: Sandbox = build_choice("sandbox", chosen)
    check(sandbox, usual)
    missing: str | None = None

    async def run(text: str, context: ToolContext) -> Truncated | str:
        nonlocal missing
        if missing is None:
            missing = await sandbox.missing()
        if missing:
            raise ToolFailed(f"sandbox {sandbox.name!r} cannot run here: {missing}")
        return told(await sandbox.run(replace(usual, text=text, key=context.key)))

    return run


def _tool(
    language: Language,
    about: str,
    description: str,
    services: ToolServices,
    options: _Options,
    example: Example,
) -> Tool:
    usual = Snippet(
        language=language,
        text="",
        key="",
        folder=options.folder,
        network=options.network,
        output_bytes=options.max_result_bytes,
    )
    run = runner_in(services.sandbox, usual)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Truncated | str:
        return await run(arguments["code"], context)

    return Tool(
        name=language,
        description=description,
        parameters={
            "type": "object",
            "properties": {"code": {"type": "string", "description": about}},
            "required": ["code"],
            "additionalProperties": False,
        },
        call=call,
        # Without a folder or network it reaches nothing that outlives it.
        effects="unkeyed" if options.folder or options.network else "none",
        timeout_s=options.timeout_s,
        max_result_bytes=options.max_result_bytes,
        examples=(example,),
    )


def told(finished: Finished) -> Truncated | str:
    """What the program printed. Raises ToolFailed, with the end of what it said, where it failed."""
    said = finished.errors.data.decode("utf-8", "replace").strip()
    if finished.code:
        printed = finished.output.data.decode("utf-8", "replace").strip()
        ended = f"killed by signal {finished.code - 128}" if finished.code > 128 else f"code {finished.code}"
        raise ToolFailed(
            "\n".join(part for part in (f"It ended with {ended}.", printed[-2000:], said[-2000:]) if part)
        )
    if not finished.output.total_bytes:
        return said or "It printed nothing."
    return finished.output
