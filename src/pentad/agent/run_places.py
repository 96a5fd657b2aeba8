"""Where runs, their model calls and their tool calls stand in traces; told by their ids alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.tracing.context import TraceContext, span_id_of, trace_id_of

_ALL = 2.0**64
"""Of the numbers that the second half of a trace id can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """What is recorded of runs."""

    fraction: float = 1.0
    """Of the traces that begin here; those that a caller began are recorded as it says."""
    content: bool = False
    """Whether goals, answers, arguments and results are told; of runs with a data label they never are."""

    def place(self, run_id: str, traceparent: str = "") -> TraceContext:
        """Where a run's own span stands: in its caller's trace, else in that of the run that leads it.

        Args:
            traceparent: as the run's first event has it.
        """
        own = span_id_of(run_id)
        caller = TraceContext.parse(traceparent)
        if caller is not None:
            return caller.at(own)
        trace_id = trace_id_of(root_of(run_id))
        return TraceContext(trace_id=trace_id, span_id=own, sampled=self._records(trace_id))

    def begun(self) -> TraceContext:
        """A place in a trace that begins here, for what is no run."""
        drawn = TraceContext.drawn()
        return drawn if self._records(drawn.trace_id) else replace(drawn, sampled=False)

    def _records(self, trace_id: str) -> bool:
        """As OpenTelemetry's TraceIdRatioBased does, so that every process decides alike."""
        return int(trace_id[16:], 16) < self.fraction * _ALL


def root_of(run_id: str) -> str:
    """The run at the top of a sub-run's tree, by its id."""
    return run_id.partition("-")[0]


def model_call(run_id: str, step: int, attempt: int) -> str:
    """The span id of a model call, of which `run.step.attempt` is the request id."""
    return span_id_of(f"{run_id}.{step}.{attempt}")


def tool_call(run_id: str, step: int, index: int) -> str:
    """The span id of a tool call, of which `run:step:index` is the idempotency key."""
    return span_id_of(f"{run_id}:{step}:{index}")
