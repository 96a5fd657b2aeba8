"""A workload of two classes and two scripted models, for tests of the benchmark of policies."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pentad.agent.evaluation.workload import Workload
from pentad.agent.evaluation.workload_file import read_workload
from pentad.agent.journal import Journal
from pentad.agent.limits import RuntimeLimits
from pentad.agent.runtime import AgentRuntime
from pentad.application.bench.elastic.contestant import Contestant
from pentad.application.bench.elastic.policy import BenchPolicy
from pentad.choice import build
from pentad.execution.backend import Backend, Capabilities
from pentad.model.prices import Price
from pentad.model.service import ModelService
from pentad.testing.backends import ALL_FORMATS, Item, ScriptedBackend
from pentad.types import Request, ToolCall

WORKLOAD = """\
classes:
  - name: sums
    deadline_s: 5
    quality: 0.4
    max_run_tokens: 2000
    ways: ["cot:think_tokens=0", "cot:think_tokens=64"]
  - name: calls
    deadline_s: 5
    max_cost: 0.001
tasks:
  - {id: sum-1, slo_class: sums, prompt: "What are 4 and 6?", check: {number: 10}}
  - {id: sum-2, slo_class: sums, prompt: "What are 40 and 60?", check: {number: 100}}
  - id: call-1
    slo_class: calls
    prompt: Look at the lamp.
    tools:
      - name: look
        parameters: {type: object, properties: {what: {type: string}}, required: [what]}
    check: {call: {name: look, arguments: {what: [lamp, the lamp]}}}
"""


def workload_at(path: pathlib.Path) -> Workload:
    """The workload, from a file."""
    file = path / "workload.yaml"
    file.write_text(WORKLOAD, "utf-8")
    return read_workload(file)


def answering(*, knows: bool) -> ScriptedBackend:
    """A model that is right, or one that only knows small sums and no tools."""

    def turn(request: Request) -> Sequence[Item]:
        if request.tools:
            name = request.tools[0].name
            if knows:
                return [ToolCall(id="call_1", name=name, arguments='{"what": "lamp"}')]
            return ["I look at the lamp."]
        asked = " ".join(message.content for message in request.messages or ())
        large = "40 and 60" in asked
        return ["Answer: 10" if not large or not knows else "Answer: 100"]

    can = Capabilities(model="scripted", context_length=8192, formats=ALL_FORMATS, token_prompts=True)
    return ScriptedBackend([turn], repeat=True, capabilities=can)


@asynccontextmanager
async def scripted_contestants(
    path: pathlib.Path, policies: Sequence[BenchPolicy]
) -> AsyncIterator[list[Contestant]]:
    """Each policy on a small model that costs little and a large one that is right."""
    backends: dict[str, Backend] = {"small": answering(knows=False), "large": answering(knows=True)}
    prices = {"small": Price(prompt=1, completion=1), "large": Price(prompt=2, completion=2)}
    clock = asyncio.get_running_loop().time
    found = []
    async with contextlib.AsyncExitStack() as undo:
        for policy in policies:
            models = ModelService(
                backends,
                router=build("router", policy.router),
                prices=prices,
                qualities={"small": 0.3, "large": 0.9},
                clock=clock,
            )
            journal = Journal(path / "journal.db", clock=clock)
            runtime = AgentRuntime(models, journal, limits=RuntimeLimits(max_runs=99), clock=clock)
            undo.push_async_callback(runtime.close)
            found.append(Contestant(policy=policy, models=models, runtime=runtime, clock=clock))
        yield found
