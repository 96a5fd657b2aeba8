"""Skills: folders with a SKILL.md, listed in a line each and read when they are needed."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest, ToolFailed
from pentad.yaml_text import read_yaml

MANIFEST = "SKILL.md"
_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FRONT = re.compile(r"---\r?\n(.*?)\r?\n---\r?\n?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """One skill: what it is called and for, and where it lies."""

    name: str
    description: str
    folder: pathlib.Path

    def read(self, file: str = MANIFEST) -> str:
        """The instructions of the skill, or the text of another file in its folder.

        Raises ToolFailed for what is no text file inside the folder, also by way of a link.
        """
        path = (self.folder / file.replace("\0", "/")).resolve()
        if "\0" in file or not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            raise ToolFailed(
                f"skill {self.name!r} has no file {file[:100]!r}; it has {', '.join(self.files())}"
            )
        text = _text(path)
        return _split(text)[1] if file == MANIFEST else text

    def files(self) -> list[str]:
        """The files of the folder, relative to it, in order."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(map(str, found))


def find_skills(folder: pathlib.Path) -> tuple[Skill, ...]:
    """The skills in a folder's folders, by name.

    Raises InvalidRequest for a folder without any, and for a skill whose front matter is not as the format
    says: name (1 to 64 of a-z, 0-9 and dashes, that of its folder) and description (1 to 1,024 characters).

    Source: the Agent Skills format (SKILL.md); `allowed-tools` is ignored: rights come from the agent's file.
    """
    found = tuple(_skill(path) for path in sorted(folder.glob(f"*/{MANIFEST}")))
    if not found:
        raise _bad(f"{str(folder)!r} has no skills", f"put each into a folder of its own with a {MANIFEST}")
    return found


def _skill(path: pathlib.Path) -> Skill:
    where = f"{path.parent.name}/{MANIFEST}"
    try:
        front: Any = read_yaml(_split(_text(path))[0])
    except (ToolFailed, ValueError) as error:
        raise _bad(f"{where}: {error}", "begin it with front matter between two lines of ---") from None
    front = front if isinstance(front, dict) else {}
    name, description = front.get("name"), front.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 64 or name != path.parent.name:
        raise _bad(
            f"{where}: name is {name!r:.80}", f"name it {path.parent.name!r}, as its folder (a-z, 0-9, -)"
        )
    if not isinstance(description, str) or not 1 <= len(description.strip()) <= 1024:
        raise _bad(f"{where}: description must be 1 to 1,024 characters", "say when the skill is needed")
    return Skill(name=name, description=" ".join(description.split()), folder=path.parent)


def _split(text: str) -> tuple[str, str]:
    """Front matter and body. Raises ValueError where there is no front matter."""
    match = _FRONT.fullmatch(text)
    if match is None:
        raise ValueError("it has no front matter")
    return match[1], match[2].strip()


def _text(path: pathlib.Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise ToolFailed(f"{path.name!r} is over {_MAX_BYTES >> 20} MiB")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ToolFailed(f"{path.name!r} is no text") from None


def _bad(problem: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"skills: {problem}", hint=hint, param="tool_options.skill.folder")
