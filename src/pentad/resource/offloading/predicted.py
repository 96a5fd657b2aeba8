"""The site where a request is predicted to finish first, by queue, KV cache, and where its run's text lies.

send | prompts in front | own prompt, but for what is cached | answer, at the pace with one more
     | or until a place or KV blocks are free                |
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.awaited import Awaited
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    OffloadTask,
    Site,
    at_site,
    estimate,
    permitted,
)
from pentad.types import Decision

_WINDOW_S = 10.0
"""Over which what a site is given is counted."""
_KEPT = 4096
"""Runs whose place is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Takes the site with the least predicted completion, which its decision gives as the score.

    Beside sending, prompts in front, and the answer at the site's pace with one request more, the
    prediction counts: prompts that are computed between the answer's tokens, at the rate at which the site
    has been given them lately; waiting for a place, or for as many KV slots as the request will hold, where
    those that are there will fill them; and what need not be computed at the site that answered the run's
    latest request, whose text is taken to be cached there. So runs stay where they are until another site is
    sooner by more than their prompt takes. What is left over is learnt: per site, taken over predicted.
    Answers are taken to have the length that is expected or the most that was asked for. Lossless.

    Source: the survey's load balancing by predicted response time (section V-A3); the session affinity
    against recomputation is that of Preble (Srivatsa et al., ICLR'25). Ours takes no look into caches.
    """

    rate: float = 0.1
    """What a new outcome counts against the earlier ones of its site, above 0 to 1."""
    sticky: bool = True
    """Whether the text of a run counts as cached where its latest request was answered."""

    name: ClassVar[str] = "predicted"

    def __post_init__(self) -> None:
        in_range("rate", self.rate, above=0, most=1)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Predicting(self)

    def cost(self, sites: int) -> float:
        return 4e-6 * sites


def predicted_s(task: OffloadTask, site: Site, cached_tokens: float, prompts_per_s: float) -> float:
    """Seconds until a task would be complete at a site, before anything is learnt.

    Args:
        cached_tokens: of its prompt, what the site need not compute.
        prompts_per_s: prompt tokens that the site is given in a second.
    """
    plain = estimate(task, site)
    own_s = (task.prompt_tokens - min(cached_tokens, task.prompt_tokens - 1)) * site.prompt_token_s
    # While the answer comes, steps also compute the prompts of others.
    busy = min(prompts_per_s * site.prompt_token_s, 0.9)
    answer_s = plain.answer_s / (1 - busy)
    waits = [site.queued_tokens * site.prompt_token_s]
    if site.running >= site.slots:
        waits.append((site.waiting + 1) / site.slots * answer_s)
    if site.kv_tokens:
        lacking = site.committed_tokens + task.prompt_tokens + task.answer_tokens - site.kv_tokens
        waits.append(max(0, lacking) / site.kv_tokens * answer_s)
    return plain.send_s + max(waits) + own_s + answer_s


class _Predicting:
    """Per site, what its predictions were off by and what it was given lately; per run, where it is."""

    def __init__(self, policy: Predicted) -> None:
        self._policy = policy
        self._logs: dict[str, float] = {}
        self._given: dict[str, tuple[float, float]] = {}
        """(prompt tokens in a second, when that was)."""
        self._awaited: Awaited[tuple[str, float]] = Awaited()
        self._runs: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Site and tokens of each run's latest request, its answer included."""

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        task, run = state.task, state.task.context.run_id
        home, text = self._runs.get(run, ("", 0)) if run is not None and self._policy.sticky else ("", 0)
        plain = {
            site.name: predicted_s(
                task, site, text if site.name == home else 0, self._rate(site.name, state.now_s)
            )
            for site in sites
        }
        scores = {name: seconds * math.exp(self._logs.get(name, 0.0)) for name, seconds in plain.items()}
        chosen = min(scores, key=scores.__getitem__)
        self._awaited.note(task.id, (chosen, plain[chosen]))
        if run is not None:
            self._runs[run] = chosen, task.prompt_tokens + task.answer_tokens
            self._runs.move_to_end(run)
            if len(self._runs) > _KEPT:
                self._runs.popitem(last=False)
        computed = task.prompt_tokens - (min(text, task.prompt_tokens) if chosen == home else 0)
        self._given[chosen] = self._rate(chosen, state.now_s) + computed / _WINDOW_S, state.now_s
        return at_site(
            state,
            chosen,
            scores,
            policy=self._policy.name,
            constraint=bound or ("cached text" if chosen == home else None),
        )

    def learn(self, outcome: OffloadOutcome) -> None:
        """Corrects the site by what the request took there."""
        if (awaited := self._awaited.take(outcome.id)) is None:
            return
        site, expected_s = awaited
        if outcome.completion_s is None or min(expected_s, outcome.completion_s) <= 0:
            return
        before = self._logs.get(site, 0.0)
        seen = math.log(outcome.completion_s / expected_s)
        self._logs[site] = before + self._policy.rate * (seen - before)

    def _rate(self, site: str, now_s: float) -> float:
        """Prompt tokens that the site is given in a second, lately."""
        rate, at_s = self._given.get(site, (0.0, now_s))
        return rate * math.exp(-max(0.0, now_s - at_s) / _WINDOW_S)
