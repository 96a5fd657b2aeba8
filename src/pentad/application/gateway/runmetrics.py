"""Metrics of agent runs, counted from the events of each run that this server follows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Histogram

from pentad.agent.events import Record, RunEnded
from pentad.agent.model_events import ModelAnswered
from pentad.agent.sub_run_events import SubRunEnded
from pentad.agent.tool_events import ToolIntended, ToolReturned

_RUN_S = (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
_TOOL_S = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_COST = (0.0001, 0.001, 0.01, 0.1, 1, 10, 100)


class RunMetrics:
    """What agents cost and how long they take; `agent` is a known agent's name or `inline`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        agent = ["agent"]
        self.runs = Counter("pentad_runs", "Runs that ended.", ["agent", "status"], registry=registry)
        self.completion = Histogram(
            "pentad_run_completion_seconds",
            "From a run's start, or its resumption here, to its end.",
            agent,
            buckets=_RUN_S,
            registry=registry,
        )
        self.cost = Histogram(
            "pentad_run_cost",
            "Money per run, in the currency of the prices that are set.",
            agent,
            buckets=_COST,
            registry=registry,
        )
        self.tokens = Counter("pentad_run_tokens", "Tokens used by runs.", agent, registry=registry)
        self.refusals = Counter(
            "pentad_budget_refusals", "Runs ended by their budget.", agent, registry=registry
        )
        self.tool_wait = Histogram(
            "pentad_tool_wait_seconds",
            "From a tool call to its result.",
            ["tool"],
            buckets=_TOOL_S,
            registry=registry,
        )

    async def follow(self, records: AsyncGenerator[Record, None], agent: str, tools: frozenset[str]) -> None:
        """Counts one run to its end. Tools outside `tools` share the label `other`."""
        begun_s: float | None = None
        asked_s: dict[str, float] = {}
        cost = 0.0
        async with aclosing(records) as stream:
            async for record in stream:
                event = record.event
                if begun_s is None:
                    begun_s = record.clock_s
                match event:
                    case ModelAnswered():
                        cost += event.usage.cost
                        self.tokens.labels(agent).inc(event.usage.total_tokens)
                    case SubRunEnded():
                        cost += event.cost
                        self.tokens.labels(agent).inc(event.tokens)
                    case ToolIntended():
                        asked_s[event.call_id] = record.clock_s
                    case ToolReturned() if event.call_id in asked_s:
                        label = event.tool if event.tool in tools else "other"
                        waited_s = record.clock_s - asked_s.pop(event.call_id)
                        self.tool_wait.labels(label).observe(max(0.0, waited_s))
                    case RunEnded():
                        self.runs.labels(agent, event.status).inc()
                        self.completion.labels(agent).observe(max(0.0, record.clock_s - begun_s))
                        self.cost.labels(agent).observe(cost)
                        self.refusals.labels(agent).inc(event.status == "budget_exceeded")
