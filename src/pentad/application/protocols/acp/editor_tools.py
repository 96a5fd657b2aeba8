"""Tools that read and write files through the editor, with what is not saved yet."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from acp import RequestError

from pentad.agent.tools.base import Tool, ToolContext
from pentad.errors import ToolFailed

READ, WRITE = "editor_read_file", "editor_write_file"
_PATH = {"type": "string", "description": "Path of the file, from the project's folder."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A session of an editor, for the tools of one run."""

    client: Any
    session_id: str
    folder: pathlib.Path

    def path(self, given: str) -> str:
        """The absolute path of a file. Raises ToolFailed for one outside the project's folder."""
        path = (self.folder / given).resolve()
        if "\0" in given or not path.is_relative_to(self.folder):
            raise ToolFailed(f"{given[:200]!r} is not in the project's folder")
        return str(path)


def editor_tools(place_of: Callable[[str], Place | None]) -> tuple[Tool, Tool]:
    """Both tools. `place_of` tells the session of a run by its id."""

    def found(context: ToolContext) -> Place:
        place = place_of(context.run_id)
        if place is None:
            raise ToolFailed("this run was not begun by an editor")
        return place

    async def read(arguments: Mapping[str, Any], context: ToolContext) -> str:
        place = found(context)
        path = place.path(arguments["path"])
        try:
            answer = await place.client.read_text_file(
                session_id=place.session_id,
                path=path,
                line=arguments.get("line"),
                limit=arguments.get("lines"),
            )
        except RequestError as error:
            raise ToolFailed(f"the editor cannot read {arguments['path']!r}: {error}") from None
        text: str = answer.content
        return text

    async def write(arguments: Mapping[str, Any], context: ToolContext) -> str:
        place = found(context)
        path = place.path(arguments["path"])
        try:
            await place.client.write_text_file(
                session_id=place.session_id, path=path, content=arguments["content"]
            )
        except RequestError as error:
            raise ToolFailed(f"the editor cannot write {arguments['path']!r}: {error}") from None
        return f"{arguments['path']} is written"

    return (
        Tool(
            name=READ,
            description="Reads a text file of the project, as it is in the editor.",
            parameters={
                "type": "object",
                "properties": {
                    "path": _PATH,
                    "line": {"type": "integer", "minimum": 1, "description": "The first line to read."},
                    "lines": {"type": "integer", "minimum": 1, "description": "How many of them."},
                },
                "required": ["path"],
                "additionalProperties": False,
            },
            call=read,
            effects="none",
        ),
        Tool(
            name=WRITE,
            description="Writes a text file of the project, whole.",
            parameters={
                "type": "object",
                "properties": {"path": _PATH, "content": {"type": "string"}},
                "required": ["path", "content"],
                "additionalProperties": False,
            },
            call=write,
            effects="unkeyed",
        ),
    )
