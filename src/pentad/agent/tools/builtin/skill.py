"""skill: instructions for a kind of work, listed in a line each and read when they are needed."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext, ToolServices
from pentad.agent.tools.skills import MANIFEST, find_skills
from pentad.errors import InvalidRequest

_LISTED_CHARACTERS = 200
"""Of each description; all of it is read with the skill."""


def build(_: ToolServices, *, folder: str = "") -> Tool:
    """The tool over one folder of skills.

    Args:
        folder: of folders with a SKILL.md each.
    """
    if not folder:
        raise InvalidRequest(
            "tool 'skill' needs a folder", hint="set tool_options.skill.folder", param="tools"
        )
    skills = {skill.name: skill for skill in find_skills(pathlib.Path(folder))}
    listed = "\n".join(f"- {each.name}: {each.description[:_LISTED_CHARACTERS]}" for each in skills.values())

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        skill, file = skills[arguments["skill"]], arguments.get("file", MANIFEST)
        text = await asyncio.to_thread(skill.read, file)
        others = [each for each in await asyncio.to_thread(skill.files) if each != MANIFEST]
        return f"{text}\n\nIts files: {', '.join(others)}" if others and file == MANIFEST else text

    return Tool(
        name="skill",
        description=f"Reads how a kind of work is done here; read the one that fits first. Skills:\n{listed}",
        parameters={
            "type": "object",
            "properties": {
                "skill": {"enum": list(skills)},
                "file": {
                    "type": "string",
                    "description": f"Another file of the skill; {MANIFEST} if left out",
                },
            },
            "required": ["skill"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        max_result_bytes=65_536,
    )
