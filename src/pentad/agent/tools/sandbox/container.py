"""Container: foreign code in a container of its own, made by podman or docker and removed behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import uuid
from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.agent.tools.process import run_process
from pentad.agent.tools.sandbox.base import WORK, Finished, Language, Limits, Snippet

_COMMANDS = {"python": ["python3", "-I", "-B", "-X", "utf8", "-"], "shell": ["sh", "-s"]}
_RUNTIMES = ("podman", "docker")
_PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Container(Limits):
    """Runs each piece of code in a container of its own, read-only and without network (podman or docker).

    For code that needs what an image holds. The image must be on the machine: none is ever fetched.
    Where the runtime's daemon is root's, so is the trust in it.

    Source: the runtimes' own documentation of `run`. Cost: some 300 ms a call.
    """

    image: str = ""
    """The image, with python3 and sh in it; must be given."""
    runtime: str = ""
    """`podman` or `docker`; empty takes the first that there is."""

    name: ClassVar[str] = "container"
    languages: ClassVar[frozenset[Language]] = frozenset({"python", "shell"})
    reaches: ClassVar[frozenset[Literal["folder", "network"]]] = frozenset({"folder", "network"})

    async def missing(self) -> str:
        """Whether there is no image chosen, no runtime, or no such image in it."""
        if not self.image:
            return "it has no image; set sandbox: {name: container, options: {image: NAME}}"
        runtime = self._runtime()
        if runtime is None:
            return f"there is neither of {' and '.join(_RUNTIMES)}; install one, or choose another sandbox"
        _, errors, code = await self._command([runtime, "image", "inspect", self.image])
        said = errors.strip().rpartition("\n")[2][:200]
        return f"{runtime} has no image {self.image!r} ({said}); fetch it" if code else ""

    async def run(self, snippet: Snippet) -> Finished:
        """What came of the snippet; its container is removed, also when the task is cancelled."""
        runtime, name = self._runtime() or _RUNTIMES[0], f"pentad-{uuid.uuid4().hex[:16]}"
        try:
            output, errors, code = await run_process(
                [runtime, *self.arguments(snippet, name)],
                env=_environment(),
                output_bytes=snippet.output_bytes,
                errors_bytes=snippet.output_bytes,
                data=snippet.text.encode("utf-8", "replace"),
            )
        except asyncio.CancelledError:
            # The container is its daemon's child, not ours.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._command([runtime, "rm", "--force", name]))
            raise
        return Finished(output=output, errors=errors, code=code if code >= 0 else 128 - code)

    def arguments(self, snippet: Snippet, name: str) -> list[str]:
        """What the runtime is told, behind its own name."""
        size = f"size={self.disk_bytes},mode=1777"
        told = ["run", "--rm", "--interactive", "--name", name, "--pull", "never", "--read-only", "--init"]
        told += ["--network", "bridge" if snippet.network else "none", "--ipc", "private"]
        told += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--log-driver", "none"]
        told += ["--memory", str(self.memory_bytes), "--memory-swap", str(self.memory_bytes)]
        told += ["--pids-limit", str(self.processes), "--ulimit", f"cpu={self.cpu_s}"]
        told += ["--ulimit", f"fsize={self.disk_bytes}", "--ulimit", f"nofile={self.open_files}"]
        told += ["--ulimit", "core=0", "--tmpfs", f"/tmp:{size}", "--workdir", WORK]
        if snippet.folder:
            folder = pathlib.Path(snippet.folder).resolve()
            owner = folder.stat()
            told += ["--volume", f"{folder}:{WORK}", "--user", f"{owner.st_uid}:{owner.st_gid}"]
        else:
            told += ["--tmpfs", f"{WORK}:{size}", "--user", "65534:65534"]
        told += ["--env", f"HOME={WORK}", "--env", f"PENTAD_TOOL_KEY={snippet.key}"]
        return [*told, self.image, *_COMMANDS[snippet.language]]

    def _runtime(self) -> str | None:
        return next((each for each in _RUNTIMES if self.runtime in ("", each) and shutil.which(each)), None)

    async def _command(self, command: list[str]) -> tuple[str, str, int]:
        output, errors, code = await run_process(command, env=_environment(), output_bytes=_PROBE_BYTES)
        return output.data.decode("utf-8", "replace"), errors.data.decode("utf-8", "replace"), code


def _environment() -> dict[str, str]:
    """What the runtime's own client needs to find its daemon; the container gets none of it."""
    names = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST")
    return {name: os.environ[name] for name in names if name in os.environ}
