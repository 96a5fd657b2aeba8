"""Tools that Anthropic defines and the client runs: known by type and date, sent without a schema."""

from __future__ import annotations

import re
from typing import Any

_DATED = re.compile(r"^(?P<family>[a-z_]+)_20\d{6}$")


def _object(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _command(*names: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(names), "description": "What to do."}


_PATH = _text("Absolute path of a file or folder.")
_RANGE = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "view: first and last line to show; -1 is the end.",
}
_EDIT: dict[str, Any] = {
    "path": _PATH,
    "file_text": _text("create: the whole text of the new file."),
    "old_str": _text("str_replace: the text to replace, which occurs exactly once."),
    "new_str": _text("str_replace: the text to put in its place."),
    "insert_line": {"type": "integer", "description": "insert: the line after which; 0 is the beginning."},
    "insert_text": _text("insert: the text to put there."),
    "view_range": _RANGE,
}

_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bash": (
        "Runs a command in a bash shell that lives on between calls, and answers with its output.",
        _object(
            [],
            command=_text("The command to run; needed unless the shell is restarted."),
            restart={"type": "boolean", "description": "True starts the shell anew."},
        ),
    ),
    "text_editor": (
        "Views, creates and edits text files.",
        _object(
            ["command", "path"],
            command=_command("view", "create", "str_replace", "insert", "undo_edit"),
            **_EDIT,
        ),
    ),
    "memory": (
        "Keeps notes in files under /memories that later conversations can read.",
        _object(
            ["command"],
            command=_command("view", "create", "str_replace", "insert", "delete", "rename"),
            **_EDIT,
            old_path=_text("rename: the path as it is."),
            new_path=_text("rename: the path as it shall be."),
        ),
    ),
}

FAMILIES = tuple(_TOOLS)


def client_tool(kind: str) -> tuple[str, dict[str, Any]] | None:
    """Description and input schema of a type such as `bash_20250124`; None for what the client cannot run."""
    match = _DATED.match(kind)
    return None if match is None else _TOOLS.get(match["family"])
