"""Reduction of tool results: long ones are shortened for the goal before the model reads them."""

from __future__ import annotations

import functools

from pentad.agent.ports import count_text
from pentad.agent.run import Run
from pentad.agent.tool_events import ResultReduced
from pentad.choice import build
from pentad.model.reduction.base import Reducible, Surprise, TokenReducer


class ResultReduction:
    """Asks the agent's token reducer on behalf of one run.

    Only what tools returned is reduced: never the goal, the conversation, a failure's text or what
    the model said. The whole result stays in the journal.
    """

    def __init__(self, run: Run, surprise: Surprise) -> None:
        self._run, self._surprise = run, surprise
        self._reducer: TokenReducer = build("reducer", run.state.spec.reduce)
        self._seen: set[tuple[int, int]] = set()

    async def reduce(self) -> None:
        """Journals a shorter text for each result of the steps before that is too long; once for each."""
        if self._reducer.max_tokens is None:
            return
        state, around = self._run.state, self._run.around
        count = functools.partial(count_text, around.models, state.spec.model)
        for exchange in state.closed:
            for index, result in sorted(exchange.results.items()):
                place = (exchange.step, exchange.first + index)
                if place in self._seen or result.status != "ok" or index in exchange.reduced:
                    continue
                self._seen.add(place)
                # A token is a byte at least, so short results are not even counted.
                if len(result.content.encode("utf-8", "replace")) <= self._reducer.max_tokens:
                    continue
                given = Reducible(
                    text=result.content,
                    goal=state.goal,
                    count=count,
                    relevance=around.relevance,
                    surprise=self._surprise,
                )
                with self._run.span("agent", "reduce"):
                    made = await self._reducer.reduce(given)
                if made.text != result.content:
                    await self._run.append(
                        ResultReduced(
                            step=exchange.step,
                            index=exchange.first + index,
                            tool=result.tool,
                            content=made.text,
                            before_tokens=made.before_tokens,
                            after_tokens=made.after_tokens,
                            decisions=(made.decision(self._reducer.name, "agent", around.clock()),),
                        )
                    )
