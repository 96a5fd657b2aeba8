"""How a run ends that did not come to an answer: with what there is of one."""

from __future__ import annotations

from pentad.agent.events import RunEnded
from pentad.agent.exchange import Exchange
from pentad.agent.planning.progress import call_shaped
from pentad.agent.run_status import RunStatus
from pentad.agent.state import RunState
from pentad.agent.tools.invocation import shown


def ended(status: RunStatus, state: RunState, error: str) -> RunEnded:
    """An end that the loop did not come to by itself, with what there is of an answer."""
    return RunEnded(status=status, answer=partial(state.closed), error=error)


def partial(exchanges: tuple[Exchange, ...]) -> str:
    """The best that an unfinished run has: its last text, or else what its tools returned."""
    for exchange in reversed(exchanges):
        said = exchange.text.strip() if exchange.purpose in ("act", "answer") else ""
        if said and not call_shaped(said):
            return said
    found = [r.content for e in exchanges for _, r in sorted(e.results.items()) if r.status == "ok"]
    return shown("\n".join(found))
