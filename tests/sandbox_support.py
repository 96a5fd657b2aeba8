"""What tests of sandboxes share: snippets run as who runs the tests, and as a user without rights."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from agent_support import run
from pentad.agent.tools.base import Truncated
from pentad.agent.tools.sandbox.base import Finished, Limits, Sandbox, Snippet
from pentad.agent.tools.sandbox.bubblewrap import Bubblewrap

SMALL = Limits(memory_bytes=256 << 20, processes=16, cpu_s=5, disk_bytes=8 << 20)
_AS_NOBODY = """
import asyncio, base64, dataclasses, json, os, sys
from pentad.agent.tools.sandbox.base import Snippet
from pentad.agent.tools.sandbox.bubblewrap import Bubblewrap
asked = json.load(sys.stdin)
sys.base_prefix, sys.executable = "/usr", "/usr/bin/python3"
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
box = Bubblewrap(**asked["limits"])
why = asyncio.run(box.missing())
if why:
    print(json.dumps({"missing": why}))
    sys.exit()
done = asyncio.run(box.run(Snippet(**asked["snippet"])))
texts = [base64.b64encode(part.data).decode() for part in (done.output, done.errors)]
totals = [done.output.total_bytes, done.errors.total_bytes]
print(json.dumps({"texts": texts, "totals": totals, "code": done.code}))
"""


def present(sandbox: Sandbox) -> Sandbox:
    """Skips aloud where the machine cannot run it."""
    if why := run(sandbox.missing()):
        pytest.skip(f"{sandbox.name}: {why}")
    return sandbox


def as_nobody(snippet: Snippet, limits: Limits = SMALL) -> Finished:
    """What comes of it in bubblewrap when a user without rights starts it; root alone can try that."""
    if os.geteuid() != 0 or not os.path.exists("/usr/bin/python3"):
        pytest.skip("needs root, and a Python that everybody may run")
    asked = {
        "snippet": asdict(snippet),
        "limits": asdict(limits),
    }
    source = str(pathlib.Path(__file__).parents[1] / "src")
    told = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={**os.environ, "PYTHONPATH": source},
    )
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    if "missing" in found:
        pytest.skip(f"without rights: {found['missing']}")
    output, errors = (
        Truncated(data=base64.b64decode(text), total_bytes=total)
        for text, total in zip(found["texts"], found["totals"], strict=True)
    )
    return Finished(output=output, errors=errors, code=found["code"])


def as_we_are(snippet: Snippet, limits: Limits = SMALL) -> Finished:
    """What comes of it in bubblewrap when we start it."""
    return run(present(Bubblewrap(**asdict(limits))).run(snippet))


STARTERS = {"as we are": as_we_are, "as nobody": as_nobody}


def said(finished: Finished) -> str:
    """All that it printed."""
    return (finished.output.data + finished.errors.data).decode("utf-8", "replace")


def python(code: str, **fields: Any) -> Snippet:
    return Snippet(language="python", text=code, key="run:1:0", **fields)


def shell(code: str, **fields: Any) -> Snippet:
    return Snippet(language="shell", text=code, key="run:1:0", **fields)
