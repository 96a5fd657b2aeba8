"""Outcomes: what came of the answers so far, as the next joint choice reads it."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pentad.model.control.alarms import SURPRISES, Alarms, Cause, Doubt
from pentad.model.control.situation import Record
from pentad.types import Forecast, Objective, Request, Usage

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST_RUNS: Final = 1024
_MOST_KEYS: Final = 4096
_OFF: Final = 1.5
"""How many times the prediction is a surprise."""
_FAR_OFF: Final = 3.0
"""How many times it counts for two."""
_LEAST_S: Final = 0.05
"""Below so many seconds a difference is noise."""
_PACE_S: Final = 2.0
"""An answer under way that has been that long behind its model's pace is a surprise, and again each time."""
_PIECES: Final = 8
"""Fewer pieces tell no pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    model: str
    forecast: Forecast
    run_id: str | None
    samples: int
    at_s: float


@dataclass(slots=True)
class _Pieces:
    """Of an answer under way."""

    first_s: float
    last_s: float
    count: int = 1


@dataclass(slots=True)
class _Model:
    joules_per_token: float = 0.0
    slower: float = 1.0
    dearer: float = 1.0
    piece_s: float = 0.0
    """Between two pieces of its answers, as it was while they came as expected; 0 while none has ended."""
    paced: int = 0
    """Answers that it rests on."""


class Outcomes:
    """Success, lengths, energy and surprises by model; of one process, bounded.

    An alarm stands for a model of whose latest answers several took far longer, or cost far more, than was
    predicted; one under way that is overdue, or comes at less than its model's pace, counts at once, so a
    model that slows down is noticed before its answers end.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str, str], Record] = OrderedDict()
        self._models: dict[str, _Model] = {}
        self._runs: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._last: OrderedDict[tuple[str, Objective], tuple[str, str]] = OrderedDict()
        self._under_way: dict[str, _UnderWay] = {}
        self._pieces: dict[str, _Pieces] = {}
        self.alarms = Alarms()

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

    def dearer(self, model: str) -> float:
        """How many times what was predicted its latest answers cost; at least 1."""
        return self._model(model).dearer

    def doubts(self, now_s: float) -> tuple[Doubt, ...]:
        """Why predictions are not trusted now, those under way included; empty while they are."""
        late: Counter[str] = Counter()
        for id, call in self._under_way.items():
            late[call.model] += self._late(call, now_s, self._pieces.get(id))
        found = self.alarms.standing(now_s)
        slow = {doubt.model for doubt in found if doubt.cause == "slow"}
        for name, count in late.items():
            if count >= SURPRISES and name not in slow:
                why = f"answers of {name!r} that are under way are overdue"
                self.alarms.tell(name, "slow", why, now_s)
                found = (*found, Doubt(model=name, cause="slow", why=why))
        return found

    def alarm(self, now_s: float) -> str:
        """All of it in one line."""
        return "; ".join(dict.fromkeys(doubt.why for doubt in self.doubts(now_s)))

    def _late(self, call: _UnderWay, now_s: float, pieces: _Pieces | None) -> int:
        """How many surprises an answer counts for, by its end or by how fast its pieces come."""
        seconds = call.forecast.seconds
        overdue = bool(seconds) and now_s - call.at_s > max(_OFF * seconds, seconds + _LEAST_S)
        usual_s = self._model(call.model).piece_s
        if pieces is None or not usual_s or pieces.count < _PIECES:
            return int(overdue)
        behind_s = now_s - pieces.first_s - _OFF * usual_s * (pieces.count - 1)
        # What it is behind a pace that would do grows half as fast as the time that passes, at half the pace.
        return max(int(overdue), round(4 * behind_s / _PACE_S))

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

    def piece(self, request_id: str, now_s: float) -> None:
        """Notes that a piece of an answer has come."""
        pieces = self._pieces.get(request_id)
        if pieces is not None:
            pieces.last_s = now_s
            pieces.count += 1
        elif request_id in self._under_way:
            self._pieces[request_id] = _Pieces(first_s=now_s, last_s=now_s)

    def ended(self, request_id: str, usage: Usage | None, now_s: float) -> None:
        """Notes what a call took; None: it broke or was given up, which tells nothing of time."""
        call, pieces = self._under_way.pop(request_id, None), self._pieces.pop(request_id, None)
        if call is None or usage is None:
            return
        late = self._late(call, now_s, pieces)
        self._compare(call, usage, late, now_s)
        if pieces is not None and pieces.count >= _PIECES:
            self._pace(call.model, (pieces.last_s - pieces.first_s) / (pieces.count - 1))
        tokens, model = usage.completion_tokens, self._model(call.model)
        if usage.energy is not None and tokens:
            each, known = usage.energy.joules / tokens, model.joules_per_token
            model.joules_per_token = known + 0.2 * (each - known) if known else each
        if call.run_id is not None:
            _kept(self._runs, call.run_id, (call.model, usage.total_tokens), _MOST_RUNS)
        self.answered(call.forecast.task, call.model, call.forecast.way, tokens / max(1, call.samples))

    def answered(self, task: str, model: str, way: str, tokens: float) -> None:
        """Counts the length of an answer that has ended."""
        key = (task, model, way)
        _kept(self._records, key, _after(self._records.get(key, Record()), tokens), _MOST_KEYS)

    def _pace(self, name: str, each_s: float) -> None:
        """Learns the usual pace; what is far from it changes it little, or slow would be usual soon."""
        model = self._model(name)
        model.paced += 1
        usual = not model.piece_s or each_s <= _OFF * model.piece_s
        weight = max(0.05, 1.0 / model.paced) if usual else 0.02
        model.piece_s += weight * (each_s - model.piece_s)

    def _compare(self, call: _UnderWay, usage: Usage, late: int, now_s: float) -> None:
        """Sets what a call took against what was predicted.

        Predictions carry the factors already, so it is what they are off by that is learnt.
        """
        name, forecast, model = call.model, call.forecast, self._model(call.model)
        if forecast.money > 0:
            dearer = usage.cost / forecast.money
            model.dearer = min(100.0, max(1.0, model.dearer * max(dearer, 0.01) ** 0.3))
            self._noted(name, "dear", dearer, "costs", "the money that was predicted", now_s)
        if forecast.seconds > 0:
            ratio = (now_s - call.at_s + _LEAST_S) / (forecast.seconds + _LEAST_S)
            model.slower = min(10.0, max(1.0, model.slower * ratio**0.3))
            self._noted(name, "slow", ratio, "takes", "the seconds that were predicted", now_s)
        for _ in range(late):
            self.alarms.surprise(name, "slow", f"{name!r} comes at less than its usual pace", now_s)

    def _noted(self, name: str, cause: Cause, ratio: float, does: str, what: str, now_s: float) -> None:
        if ratio > _OFF:
            for _ in range(2 if ratio > _FAR_OFF else 1):
                self.alarms.surprise(name, cause, f"{name!r} {does} {ratio:.1f} times {what}", now_s)
        else:
            self.alarms.calm(name, cause)

    def judged(self, task: str, model: str, way: str, *, right: bool) -> None:
        """Counts an answer that somebody judged."""
        key = (task, model, way)
        record = self._records.get(key, Record())
        counted = replace(record, right=record.right + right, wrong=record.wrong + (not right))
        _kept(self._records, key, counted, _MOST_KEYS)

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model())


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
