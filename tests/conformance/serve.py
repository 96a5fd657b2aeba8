"""A server of one scripted agent for the suites: prints its URL, ends with its standard input."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from gateway_support import scripted
from pentad.agent.spec import AgentSpec

with scripted(["It is done."], repeat=True, agents={"helper": AgentSpec(name="helper")}) as server:
    print(server.url, flush=True)
    sys.stdin.read()
