"""ToolFiles: Python functions as tools, named in agent files as `./prices.py:price`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import pathlib
import re
import sys
import threading
from dataclasses import replace
from types import ModuleType
from typing import Any

from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool
from pentad.agent.tools.function_files import anchored_file, is_function_file
from pentad.agent.tools.functions import tool
from pentad.errors import Forbidden, InvalidRequest

_REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")
Stamp = tuple[int, int, int] | None


def is_reference(name: str) -> bool:
    """Whether an entry of `tools` names a function in a file."""
    return _REFERENCE.fullmatch(name) is not None


def names_file(name: str) -> bool:
    """Whether an entry of `tools` names a file of any kind."""
    return is_reference(name) or is_function_file(name)


def anchored(spec: AgentSpec, folder: pathlib.Path) -> AgentSpec:
    """The spec with every file reference absolute: relative ones count from `folder`."""

    def absolute(name: str) -> str:
        if is_function_file(name):
            return anchored_file(name, folder)
        match = _REFERENCE.fullmatch(name)
        if match is None:
            return name
        path = pathlib.Path(match["path"]).expanduser()
        return f"{(folder / path).resolve()}:{match['name']}"

    # Members have their own folders: each is anchored where it is read.
    return replace(spec, tools=tuple(absolute(name) for name in spec.tools))


def references(spec: AgentSpec) -> tuple[pathlib.Path, ...]:
    """The Python files that a spec takes tools from, those of its team included."""
    return tuple(dict.fromkeys(path for path, _ in _split(spec)))


def _split(spec: AgentSpec) -> list[tuple[pathlib.Path, str]]:
    found = (_REFERENCE.fullmatch(name) for name in spec.tools)
    own = [(pathlib.Path(match["path"]), match["name"]) for match in found if match]
    return own + [each for member in spec.agents.values() for each in _split(member)]


def stamp(path: pathlib.Path) -> Stamp:
    """What changes when the file does; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class ToolFiles:
    """Python files that tools are taken from. Safe from any thread.

    A run's journal names the files of its tools, and a journal may have been edited: so a file is
    loaded only when an agent file of this process, which its operator chose, names it too.
    """

    def __init__(self) -> None:
        self._modules: dict[pathlib.Path, tuple[Stamp, ModuleType] | None] = {}
        """By allowed file; None until it has been loaded."""
        self._lock = threading.RLock()

    def allow(self, spec: AgentSpec) -> None:
        """Lets the spec's tools be taken from their files, as these are now.

        Raises InvalidRequest as `tool` does; then what was loaded before goes on.
        """
        with self._lock:
            fresh: dict[pathlib.Path, tuple[Stamp, ModuleType]] = {}
            for path in references(spec):
                known = self._modules.setdefault(path, None)
                now = stamp(path)
                fresh[path] = known if known is not None and known[0] == now else (now, _loaded(path))
            for path, name in _split(spec):
                _taken(path, fresh[path][1], name)
            self._modules |= fresh

    def tool(self, reference: str) -> Tool:
        """The tool that an absolute reference names.

        Raises:
            Forbidden: no agent file of this process names its file.
            InvalidRequest: the file cannot be loaded, or holds no such function.
        """
        match = _REFERENCE.fullmatch(reference)
        assert match is not None, "only references come here"
        path = pathlib.Path(match["path"])
        with self._lock:
            if path not in self._modules:
                raise Forbidden(
                    f"tool file {str(path)!r} is named by no agent file of this process",
                    hint="give its agent file in agents (--agents)",
                    param="tools",
                )
            known = self._modules[path]
            if known is None:
                known = self._modules[path] = (stamp(path), _loaded(path))
            return _taken(path, known[1], match["name"])


def _loaded(path: pathlib.Path) -> ModuleType:
    """The file as a module of its own, under a name that nothing else has."""
    if not path.is_file():
        raise _bad(path, "there is no such file")
    digest = hashlib.sha256(f"{path}{stamp(path)}".encode("utf-8", "surrogateescape")).hexdigest()
    name = f"pentad_tools_{digest[:16]}"
    made = importlib.util.spec_from_file_location(name, path)
    assert made is not None, "a .py file has a loader"
    assert made.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(made)
    sys.modules[name] = module  # where dataclasses look their module up
    try:
        made.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _bad(path, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
    return module


def _taken(path: pathlib.Path, module: ModuleType, name: str) -> Tool:
    made: Any = getattr(module, name, None)
    if isinstance(made, Tool):
        return made
    if not callable(made):
        known = ", ".join(_offered(module)) or "none"
        raise _bad(path, f"there is no function {name!r}; it has {known}")
    try:
        return tool(made)
    except Exception as error:
        # Annotations are the user's; resolving them may raise anything.
        raise _bad(path, f"{name!r} is no tool: {error}") from None


def _offered(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Tool)
        or (inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"))
    ]


def _bad(path: pathlib.Path, problem: str) -> InvalidRequest:
    return InvalidRequest(f"tool file {path.name!r}: {problem}", hint=f"mend {path}", param="tools")
