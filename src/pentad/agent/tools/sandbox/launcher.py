"""launched: a command that bounds itself first, from inside the sandbox, and then becomes another."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from pentad.agent.tools.sandbox.base import WORK, Limits

_PROGRAM = """
import json, os, resource, sys
limits, user, folder = json.loads(sys.argv[1])
for name, value in limits.items():
    resource.setrlimit(getattr(resource, name), (value, value))
if user is not None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
os.chdir(folder)
os.execv(sys.argv[2], sys.argv[2:])
"""


def launched(limits: Limits, command: Sequence[str], user: int | None) -> list[str]:
    """The command behind its limits, which it cannot lift.

    Inside, since the number of processes is counted per user namespace.

    Args:
        user: who it is from then on; None stays who it is.
    """
    bounds = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": limits.cpu_s,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }
    python = os.path.realpath(sys.executable)
    return [python, "-I", "-S", "-B", "-c", _PROGRAM, json.dumps([bounds, user, WORK]), *command]
