"""What every result names: the commit, the machine, and memory used."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import resource
import subprocess
from typing import Any

import psutil

from pentad.resource.profile import hardware


def commit(folder: pathlib.Path | None = None) -> str | None:
    """The commit that this code was run from, `-dirty` when files differ; None outside a repository.

    Args:
        folder: a folder of the repository; None means where this code lies.
    """
    at = folder or pathlib.Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"],
            cwd=at,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def machine() -> dict[str, Any]:
    """This machine: processor, cores that this process may use, memory, instruction sets, load."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": hardware.cores(),
        "memory_bytes": hardware.memory_bytes(),
        "isa": list(hardware.isa()),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(hardware.load_average(), 2),
    }


def processor() -> str:
    """Its name, as the system tells it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        names.setdefault(key.strip(), value.strip())
    model = names.get("model name") or platform.processor() or "unknown"
    family = [names[key] for key in ("cpu family", "model", "stepping") if key in names]
    return f"{model} ({'/'.join(family)})" if family else model


def peak_rss_bytes(pid: int | None = None) -> int | None:
    """Most memory that a process has held at once; of this one when `pid` is None.

    For another one its children are added, each with its own peak: at least what all held at once.
    None where the process is gone or the system does not tell.
    """
    if pid is not None:
        try:
            children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return None
        peaks = [_peak_bytes(each) for each in (pid, *children)]
        return None if peaks[0] is None else sum(peak or 0 for peak in peaks)
    if (own := _peak_bytes(os.getpid())) is not None:
        return own
    scale = 1 if platform.system() == "Darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _peak_bytes(pid: int) -> int | None:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(kilobytes) << 10 for kilobytes in found), None)


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process and its children have used; 0 where it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(
            times.user + times.system
            for times in (p.cpu_times() for p in (process, *process.children(recursive=True)))
        )
    except psutil.Error:
        return 0.0


def append_line(path: pathlib.Path, result: dict[str, Any]) -> None:
    """Adds the result to a file of JSON lines, which is created when absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(one_line(result) + "\n")


def one_line(result: dict[str, Any]) -> str:
    """The result as one line of JSON."""
    return json.dumps(result, ensure_ascii=False, separators=(", ", ": "))
