"""A cascade: the cheapest model answers first, and what it is not sure of goes to the next one."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.backend import Completion
from pentad.model.routing import estimates
from pentad.model.routing.base import RouterInput
from pentad.model.routing.calibration import Platt, conformal_threshold, logit
from pentad.model.routing.cascade import Verdict
from pentad.model.routing.outcomes import Outcome, read_outcomes
from pentad.model.routing.signals import signal_of
from pentad.ranges import in_range
from pentad.types import Decision, Request

_LEAST: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabi:
    """Asks the models that may serve by rising price, until one is sure enough of its answer.

    How sure is the mean probability of the answer's tokens, 0 where its form is wrong (JSON that cannot be
    read, a call of a tool that was not offered), turned into the chance that the answer is right by recorded
    answers. An answer without log probabilities is kept where its form was asked for and holds. All answers
    of a request count against its one budget; where that does not pay for the next model, or it fails, the
    answer that is there is given. A named model is served alone. The first words of an answer come once it
    is judged.
    Exactness: lossy where the first answer is kept; the metric is the share of right answers. With `risk` at
    most that share of a model's wrong answers is kept, if fresh requests are like the recorded ones.
    Cost: every answer that is not kept, with its time and tokens.

    Source: Tabi (Wang et al., EuroSys'23, sections 4.1 and 4.2: multi-level inference by calibrated
    confidence). Our difference: generated text beside classes, Platt's two numbers in place of a
    temperature, a conformal threshold; the next model reads the whole prompt, and its answer stands alone,
    where Tabi prunes words by attention and weighs both answers.
    """

    calibration: str = ""
    """File of outcomes (JSON lines) whose `said` is how sure each model was; empty: believed as it is."""
    keep: float = 0.8
    """Chance from which on an answer is kept, 0 to 1."""
    risk: float | None = None
    """Share of wrong answers that may be kept, above 0 to 1, in the place of `keep`; wants `calibration`."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects."""

    name: ClassVar[str] = "tabi"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("keep", self.keep, least=0, most=1)
        in_range("risk", self.risk, above=0, most=1)
        in_range("answer_tokens", self.answer_tokens, least=1)
        if self.risk is not None and not self.calibration:
            raise InvalidRequest(
                "risk is a promise on recorded answers, but there are none",
                hint="set `calibration` to a file of outcomes, or `keep` in the place of `risk`",
                param="risk",
            )
        if self.calibration:
            self._known()  # a file that cannot be used ends the start and not some request

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The first model; the decision's candidates are whom to ask in turn.

        Raises Infeasible where no model that may serve is good enough.
        """
        request = state.request
        floor = request.context.objective.min_quality or 0.0
        able = estimates.able(state)
        good = estimates.good_enough(able, floor)
        costs = {name: estimates.cost(request, one, self.answer_tokens) for name, one in good.items()}

        def rank(name: str) -> tuple[float, ...]:
            seconds = estimates.total_s(request, good[name], self.answer_tokens)
            return (costs[name], good[name].quality or 0.0, seconds)

        order = sorted(good, key=rank)
        return order[0], Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=order[0],
            candidates=tuple((name, costs[name]) for name in order),
            constraint=f"quality of at least {floor:g}"
            if len(good) < len(able)
            else request.context.data_label,
            at_s=state.now_s,
        )

    def verdict(self, request: Request, answer: Completion) -> Verdict:
        """Whether that model's answer is kept, and how probable it is right; None: nothing tells."""
        sure, form = confidence(request, answer), signal_of(request, answer)
        if sure is None:
            return Verdict(keeps=form == 1.0, chance=None)
        known = self._known().get(request.model) if self.calibration else None
        chance = sure if known is None or sure == 0 else known.chance(sure)
        if self.risk is None or known is None:
            return Verdict(keeps=chance >= self.keep, chance=chance)
        return Verdict(keeps=sure > known.threshold(self.risk), chance=chance)

    def _known(self) -> Mapping[str, Known]:
        path = pathlib.Path(self.calibration).expanduser()
        return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What recorded answers of one model tell of how sure it was."""

    platt: Platt
    wrong: tuple[float, ...]
    """How sure it was of wrong answers."""

    @classmethod
    def of(cls, model: str, sure: Sequence[float], right: Sequence[float]) -> Known:
        """Raises InvalidRequest with fewer than 20 answers."""
        if len(sure) < _LEAST:
            raise InvalidRequest(
                f"{len(sure)} answers of model {model!r} say how sure it was, too few to calibrate",
                hint=f'record at least {_LEAST} with "said": {{"{model}": 0.8}}, or leave `calibration` out',
                param="calibration",
            )
        platt = Platt.fit(logit(np.array(sure)), np.array(right))
        wrong = tuple(one for one, good in zip(sure, right, strict=True) if good < 0.5)
        return cls(platt=platt, wrong=wrong)

    def chance(self, sure: float) -> float:
        """That such an answer is right."""
        return float(self.platt(logit(np.array([sure])))[0])

    def threshold(self, risk: float) -> float:
        """What a wrong answer passes with a probability of at most `risk`."""
        return conformal_threshold(self.wrong, risk)


def confidence(request: Request, answer: Completion) -> float | None:
    """The geometric mean of the probabilities of the answer's tokens; 0 where its form is wrong.

    None where no log probabilities came with it.
    """
    if signal_of(request, answer) == 0:
        return 0.0
    told = [token.logprob for token in answer.choices[0].logprobs]
    return math.exp(sum(told) / len(told)) if told else None


@functools.lru_cache(maxsize=8)
def _read(path: pathlib.Path, _changed_ns: int) -> Mapping[str, Known]:
    """By model. Raises InvalidRequest where there is no such file, or too little in it."""
    outcomes: list[Outcome] = read_outcomes(path)
    models = dict.fromkeys(name for one in outcomes for name in one.said if name in one.right)
    if not models:
        raise InvalidRequest(
            f"no outcome of {str(path)!r} says how sure a model was",
            hint='give lines like {"prompt": "2+2?", "outcomes": {"small": 1}, "said": {"small": 0.9}}',
            param="calibration",
        )
    found = {}
    for name in models:
        pairs = [(one.said[name], one.right[name]) for one in outcomes if name in one.said]
        found[name] = Known.of(name, [sure for sure, _ in pairs], [right for _, right in pairs])
    return found
