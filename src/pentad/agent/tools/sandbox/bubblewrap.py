"""Bubblewrap: foreign code in Linux namespaces of its own, behind a seccomp filter and hard limits."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import psutil

from pentad.agent.tools.process import run_process
from pentad.agent.tools.sandbox import seccomp
from pentad.agent.tools.sandbox.base import MIB, WORK, Finished, Language, Limits, Snippet
from pentad.agent.tools.sandbox.cgroup import cgroup
from pentad.agent.tools.sandbox.launcher import launched
from pentad.errors import ToolFailed

_CODE = "/run/code"
_SHARED = ("/usr",)
_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ca-certificates")
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
"""Joins control groups, then becomes the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubblewrap(Limits):
    """Runs code in Linux namespaces of its own, with a seccomp filter and hard limits (needs `bwrap`).

    It sees the machine's programs read-only, the Python that runs us (without the packages beside us),
    an empty /tmp and working folder in memory, its own processes, and nothing else: no home, no
    environment, no network, no device but the harmless ones. As root it runs as a user that nobody
    else is; otherwise in a user namespace. Whatever it started ends with it.

    Source: bubblewrap (Flatpak's sandbox); the filter and the limits are ours. Cost: some 30 ms a call,
    and the memory of what it writes.
    """

    name: ClassVar[str] = "bubblewrap"
    languages: ClassVar[frozenset[Language]] = frozenset({"python", "shell"})
    reaches: ClassVar[frozenset[Literal["folder", "network"]]] = frozenset({"folder", "network"})

    async def missing(self) -> str:
        """Why it cannot run here: no bwrap, no namespaces, or a processor without a filter."""
        if shutil.which("bwrap") is None:
            return "there is no bwrap; install the package bubblewrap, or choose another sandbox"
        if seccomp.program(network=False) is None:
            return f"no seccomp filter is known for {os.uname().machine}; choose another sandbox"
        try:
            tried = await self.run(Snippet(language="shell", text="exit 0", key=""))
        except ToolFailed as error:
            return str(error)
        said = tried.errors.data.decode("utf-8", "replace").strip()[-300:]
        return (
            f"bwrap cannot make namespaces here ({said}); allow them, or choose another" if tried.code else ""
        )

    async def run(self, snippet: Snippet) -> Finished:
        """What came of the snippet; everything that it started is gone by then."""
        filter_program = seccomp.program(network=snippet.network)
        assert filter_program is not None, "`missing` says so"
        root = os.geteuid() == 0
        user, others = _user(snippet.folder) if root else (None, 0)
        with _files(filter_program, snippet.text.encode("utf-8", "replace")) as (filter_fd, code_fd):
            options = [*arguments(snippet, self, root=root), "--seccomp", str(filter_fd)]
            options += [
                "--perms",
                "0755",
                "--dir",
                "/run",
                "--perms",
                "0444",
                "--ro-bind-data",
                str(code_fd),
                _CODE,
            ]
            options += ["--remount-ro", "/"]
            with _files("\0".join(options).encode()) as (options_fd,):
                limits = replace(self, processes=self.processes + others)
                inside = launched(limits, interpreter(snippet.language, _CODE), user)
                command = ["bwrap", "--args", str(options_fd), "--", *inside]
                most = self.memory_bytes + 2 * self.disk_bytes
                async with cgroup(most, self.processes + 2) as joins:
                    output, errors, code = await run_process(
                        ["/bin/sh", "-c", _JOIN, "sh", str(len(joins)), *joins, *command],
                        # The first process inside is bwrap's own, whose environment can be read there.
                        env={"PATH": os.environ.get("PATH", os.defpath)},
                        output_bytes=snippet.output_bytes,
                        errors_bytes=snippet.output_bytes,
                        pass_fds=(filter_fd, code_fd, options_fd),
                    )
        return Finished(output=output, errors=errors, code=code if code >= 0 else 128 - code)


def arguments(snippet: Snippet, limits: Limits, *, root: bool) -> list[str]:
    """What bwrap is told of the world that the snippet sees.

    Args:
        root: whether bwrap is run by root, who needs no user namespace and gives none.
    """
    half, small = str(limits.disk_bytes), str(min(limits.disk_bytes, 16 * MIB))
    privileges = ["--cap-drop", "ALL"]
    if root:
        privileges += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        privileges += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    world = [
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--hostname",
        "sandbox",
    ]
    world += [] if snippet.network else ["--unshare-net"]
    world += ["--die-with-parent", "--new-session", "--clearenv", *privileges]
    for place in (*_SHARED, *_python()):
        for parent in reversed(pathlib.Path(place).parents[:-1]):
            world += ["--perms", "0755", "--dir", str(parent)]
        world += ["--ro-bind", place, place]
    for place in _LINKED:
        if os.path.islink(place):
            world += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            world += ["--ro-bind", place, place]
    for place in (*_FILES, *(_NETWORK_FILES if snippet.network else ())):
        world += ["--ro-bind-try", place, place]
    world += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", small, "--tmpfs", "/dev/shm"]
    world += ["--remount-ro", "/dev", "--perms", "1777", "--size", half, "--tmpfs", "/tmp"]
    if snippet.folder:
        world += ["--bind", str(pathlib.Path(snippet.folder).resolve()), WORK]
    else:
        world += ["--perms", "1777", "--size", half, "--tmpfs", WORK]
    told = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
    for name, value in {**told, "PENTAD_TOOL_KEY": snippet.key}.items():
        world += ["--setenv", name, value]
    # The working folder may be closed to whoever starts bwrap; the launcher goes there as its user.
    return [*world, "--chdir", "/"]


def interpreter(language: Language, file: str) -> list[str]:
    """The command that runs a file of a language."""
    if language == "python":
        return [os.path.realpath(sys.executable), "-I", "-B", "-X", "utf8", file]
    return ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", file]


def _python() -> Sequence[str]:
    """Where our Python lives, unless the shared folders hold it."""
    home = os.path.realpath(sys.base_prefix)
    return () if any(home == place or home.startswith(f"{place}/") for place in _SHARED) else (home,)


def _user(folder: str) -> tuple[int, int]:
    """Who the code is when root starts it, and how many processes and threads that user has already.

    The owner of its folder, or else nobody that there is. Raises ToolFailed for a folder of root's.
    """
    if not folder:
        return (1 << 30) + secrets.randbelow(1 << 29), 0
    owner = os.stat(folder).st_uid
    if owner == 0:
        raise ToolFailed(
            f"the folder {folder!r} is root's, and foreign code is never root; give it to a user"
        )
    running = (each.info for each in psutil.process_iter(["uids", "num_threads"]))
    return owner, sum(
        each["num_threads"] or 0 for each in running if each["uids"] and each["uids"].real == owner
    )


@contextlib.contextmanager
def _files(*contents: bytes) -> Iterator[tuple[int, ...]]:
    """Descriptors of files in memory with these contents."""
    opened: list[int] = []
    try:
        for content in contents:
            opened.append(os.memfd_create("pentad", 0))
            with os.fdopen(os.dup(opened[-1]), "wb") as file:
                file.write(content)
            os.lseek(opened[-1], 0, os.SEEK_SET)
        yield tuple(opened)
    finally:
        for descriptor in opened:
            os.close(descriptor)
