"""Outcomes: what came of the answers so far, as the next joint choice reads it."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from pentad.model.control.situation import Record
from pentad.types import Forecast, Objective, Request, Usage

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST_RUNS: Final = 1024
_MOST_KEYS: Final = 4096
_RECENT: Final = 8
"""Latest answers that say whether predictions hold."""
_SURPRISES: Final = 3
"""So many of them raise the alarm."""
_OFF: Final = 1.5
"""How many times the prediction is a surprise."""
_LEAST_S: Final = 0.05
"""Below so many seconds a difference is noise."""
_CALM_S: Final = 30.0
"""Without a surprise for so long, the alarm ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    model: str
    forecast: Forecast
    run_id: str | None
    samples: int
    at_s: float


@dataclass(slots=True)
class _Model:
    joules_per_token: float = 0.0
    slower: float = 1.0
    surprises: deque[bool] = field(default_factory=lambda: deque(maxlen=_RECENT))
    surprised_s: float = float("-inf")
    why: str = ""


class Outcomes:
    """Success, lengths, energy and surprises by model; of one process, bounded.

    An alarm stands for a model of whose latest answers several took far longer, or cost far more, than was
    predicted; one under way that is overdue counts at once, so a model that slows down is noticed before its
    answers end. It ends when there has been no surprise for a while.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str, str], Record] = OrderedDict()
        self._models: dict[str, _Model] = {}
        self._runs: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._last: OrderedDict[tuple[str, Objective], tuple[str, str]] = OrderedDict()
        self._under_way: dict[str, _UnderWay] = {}

    def records(self, task: str, model: str, ways: Mapping[str, object]) -> dict[str, Record]:
        """How each way of asking this model went for such tasks."""
        found = {way: self._records.get((task, model, way)) for way in ways}
        return {way: record for way, record in found.items() if record is not None}

    def last(self, task: str, objective: Objective) -> tuple[str, str] | None:
        """Model and way of the latest choice for such a task and objective."""
        return self._last.get((task, objective))

    def cached_tokens(self, run_id: str | None, model: str) -> int:
        """Tokens of the run's last prompt and answer, where that model served it."""
        known = None if run_id is None else self._runs.get(run_id)
        return known[1] if known is not None and known[0] == model else 0

    def joules_per_token(self, model: str) -> float:
        """Measured; 0 where nothing was."""
        return self._model(model).joules_per_token

    def slower(self, model: str) -> float:
        """How many times what was predicted its latest answers took; at least 1."""
        return self._model(model).slower

    def alarm(self, now_s: float) -> str:
        """Why predictions are not trusted now; empty while they are."""
        overdue: Counter[str] = Counter()
        for call in self._under_way.values():
            seconds = call.forecast.seconds
            if seconds and now_s - call.at_s > max(_OFF * seconds, seconds + _LEAST_S):
                overdue[call.model] += 1
        for name in overdue:
            self._model(name).surprised_s = now_s
        for name, model in self._models.items():
            if now_s - model.surprised_s > _CALM_S:
                model.surprises.clear()
            if sum(model.surprises) + overdue[name] >= _SURPRISES:
                return model.why or f"{overdue[name]} answers of {name!r} are overdue"
        return ""

    def begun(self, request: Request, now_s: float) -> None:
        """Notes a call that begins, and what is expected of it; one without a forecast is not followed."""
        forecast = request.forecast
        if forecast is None:
            return
        self._under_way[request.id] = _UnderWay(
            model=request.model,
            forecast=forecast,
            run_id=request.context.run_id,
            samples=request.sampling.n,
            at_s=now_s,
        )
        key = (forecast.task, request.context.objective)
        _kept(self._last, key, (request.model, forecast.way), _MOST_KEYS)

    def ended(self, request_id: str, usage: Usage | None, now_s: float) -> None:
        """Notes what a call took; None: it broke or was given up, which tells nothing of time."""
        call = self._under_way.pop(request_id, None)
        if call is None or usage is None:
            return
        self._compare(call, usage, now_s)
        tokens, model = usage.completion_tokens, self._model(call.model)
        if usage.energy is not None and tokens:
            each, known = usage.energy.joules / tokens, model.joules_per_token
            model.joules_per_token = known + 0.2 * (each - known) if known else each
        if call.run_id is not None:
            _kept(self._runs, call.run_id, (call.model, usage.total_tokens), _MOST_RUNS)
        key = (call.forecast.task, call.model, call.forecast.way)
        record = self._records.get(key, Record())
        _kept(self._records, key, _after(record, tokens / max(1, call.samples)), _MOST_KEYS)

    def _compare(self, call: _UnderWay, usage: Usage, now_s: float) -> None:
        """Sets what a call took against what was predicted."""
        model, forecast = self._model(call.model), call.forecast
        if forecast.money > 0 and usage.cost > _OFF * forecast.money:
            self._surprise(call.model, now_s, f"{call.model!r} costs more than was predicted")
        if forecast.seconds <= 0:
            return
        ratio = (now_s - call.at_s + _LEAST_S) / (forecast.seconds + _LEAST_S)
        # Predictions carry the factor already, so it is what they are off by that is learnt.
        model.slower = min(10.0, max(1.0, model.slower * ratio**0.3))
        if ratio > _OFF:
            what = f"takes {ratio:.1f} times the seconds that were predicted"
            self._surprise(call.model, now_s, f"{call.model!r} {what}")
        else:
            model.surprises.append(False)

    def judged(self, task: str, model: str, way: str, *, right: bool) -> None:
        """Counts an answer that somebody judged."""
        key = (task, model, way)
        record = self._records.get(key, Record())
        counted = replace(record, right=record.right + right, wrong=record.wrong + (not right))
        _kept(self._records, key, counted, _MOST_KEYS)

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model())

    def _surprise(self, name: str, now_s: float, why: str) -> None:
        model = self._model(name)
        model.surprises.append(True)
        model.surprised_s, model.why = now_s, why


def task_of(request: Request) -> str:
    """The kind of task that a request says, or else the kind that its form tells."""
    if request.context.task is not None:
        return request.context.task
    if request.tools and request.tool_choice.mode != "none":
        return "tools"
    if request.format.kind != "text":
        return "form"
    return "text"


def draw_of(request: Request) -> float:
    """A number in [0, 1) that depends on the request's id alone, so that it is drawn again alike."""
    digest = hashlib.blake2b(request.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64


def _after(record: Record, tokens: float) -> Record:
    count = record.answers + 1
    weight = max(1.0 / count, 0.05)
    mean = record.tokens + weight * (tokens - record.tokens)
    spread = record.spread + weight * (abs(tokens - mean) - record.spread)
    return replace(record, tokens=mean, spread=spread, answers=count)


def _kept(table: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > most:
        table.popitem(last=False)
