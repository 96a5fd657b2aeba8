"""AgentCatalogue: the agents that can be started by name, from files that may change meanwhile."""

from __future__ import annotations

import glob
import logging
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pentad.agent.loading import SUFFIXES, load_agent, member_files, ready
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.files import Stamp, ToolFiles, references, stamp
from pentad.errors import InvalidRequest, PentadError, UnknownName

BUILT_IN = "built-in"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry:
    """One agent, or a file that should hold one."""

    name: str
    source: str
    """`built-in`, or the file."""
    spec: AgentSpec | None
    """The last version that could be read; None when none ever could."""
    error: str | None = None
    """Why the file as it is now cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What is known of one file."""

    stamps: Mapping[pathlib.Path, Stamp]
    """Of the file, of those of its team, and of the Python files that they take tools from."""
    entry: AgentEntry

    def changed(self) -> bool:
        return any(stamp(path) != before for path, before in self.stamps.items())


@dataclass(slots=True)
class AgentCatalogue:
    """Agents by name.

    Files are looked at whenever somebody asks, and read again when they have changed. A file that
    breaks shows its error while its last good version goes on; a file that is gone takes its agent
    with it. Runs under way keep the version that they began with. Safe to use from several threads.
    """

    built_in: Mapping[str, AgentSpec] = field(default_factory=dict)
    patterns: Sequence[str] = ()
    """Files, folders or globs; relative ones count from the working directory."""
    tool_files: ToolFiles = field(default_factory=ToolFiles)
    """Where the agents' Python tools come from."""
    check: Callable[[AgentSpec], None] | None = None
    """Raises for an agent that cannot be run here: an unknown tool or planner, a bad option."""
    _files: dict[pathlib.Path, _File] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str) -> AgentSpec:
        """The agent. Raises UnknownName with the known ones, InvalidRequest for a file that is broken."""
        entries = self.entries()
        found = [entry for entry in entries if entry.name == name]
        for entry in found:
            if entry.spec is not None:
                return entry.spec
        if found:
            raise InvalidRequest(f"agent {name!r} cannot be used: {found[0].error}", param="agent")
        known = ", ".join(entry.name for entry in entries if entry.spec is not None) or "none"
        raise UnknownName(f"no agent {name!r}", hint=f"known: {known}", param="agent")

    def entries(self) -> list[AgentEntry]:
        """All of them as the files are now: built-in ones first, then by file."""
        with self._lock:
            self._look()
            found = [AgentEntry(name=n, source=BUILT_IN, spec=spec) for n, spec in self.built_in.items()]
            holders = {entry.name: entry.source for entry in found}
            for file in self._files.values():
                entry = file.entry
                holder = holders.setdefault(entry.name, entry.source)
                if entry.spec is not None and holder != entry.source:
                    problem = f"the name {entry.name!r} is taken by {holder}; choose another"
                    entry = replace(entry, spec=None, error=problem)
                found.append(entry)
            return found

    def names(self) -> frozenset[str]:
        """Those that were known when somebody last looked; touches no file."""
        return frozenset(self.built_in) | {file.entry.name for file in self._files.values()}

    def _look(self) -> None:
        paths = self._paths()
        for gone in [path for path in self._files if path not in paths]:
            del self._files[gone]
        for path in paths:
            known = self._files.get(path)
            if known is None or known.changed():
                self._files[path] = self._read(path, known.entry if known else None)
        self._files = {path: self._files[path] for path in paths}

    def _read(self, path: pathlib.Path, before: AgentEntry | None) -> _File:
        stamps = {path: stamp(path)}
        try:
            stamps |= {file: stamp(file) for file in member_files(path)}
            spec = load_agent(path)
            # Before they are loaded: what is saved meanwhile is seen the next time.
            stamps |= {file: stamp(file) for file in references(spec)}
            self.tool_files.allow(spec)
            if self.check is not None:
                self.check(spec)
        except PentadError as error:
            _LOG.warning("agent file %s: %s", path, error)
            name = before.name if before else path.stem
            good = before.spec if before else None
            return _File(
                stamps=stamps, entry=AgentEntry(name=name, source=str(path), spec=good, error=str(error))
            )
        return _File(stamps=stamps, entry=AgentEntry(name=spec.name, source=str(path), spec=spec))

    def _paths(self) -> list[pathlib.Path]:
        found: dict[pathlib.Path, None] = {}
        for pattern in self.patterns:
            path = pathlib.Path(pattern).expanduser().absolute()
            if path.is_dir():
                matches = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
            elif glob.has_magic(pattern) and not path.exists():
                matches = [pathlib.Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
            else:
                matches = [path]  # also one that is not there: it shows as an error
            found |= dict.fromkeys(matches)
        return list(found)


def catalogue_of(patterns: Sequence[str]) -> AgentCatalogue:
    """The agents that come with Pentad and those of the files that the patterns name."""
    return AgentCatalogue(built_in={name: load_agent(name) for name in ready()}, patterns=patterns)
