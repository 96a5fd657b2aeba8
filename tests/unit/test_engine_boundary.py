"""What crosses the engine's loop could be sent to another process: plain data, but for the two named here."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from pentad.execution.batch import Drawn
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.types import Decision, Objective, RunContext, Sampling

LIVE = {"constraint", "watcher"}
"""Objects that the engine's thread calls at every token; a worker process would have to build its own."""


def there_and_back(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


@pytest.mark.parametrize(
    "value",
    [
        Sampling(temperature=0.5, logit_bias={3: -1.0}, stop=("a",), stop_token_ids=(4,), logprobs=2),
        RunContext(run_id="r", graph={"a": ("b",)}, objective=Objective(ttft_s=0.1)),
        EngineLimits(max_batch_tokens=64),
        SequenceStats(
            arrived_s=1.0,
            decisions=(
                Decision(layer="resource", policy="p", subject="s", chosen="c", candidates=(("a", 1.0),)),
            ),
        ),
    ],
)
def test_its_records_come_back_equal(value: Any) -> None:
    assert there_and_back(value) == value


def test_a_request_is_plain_but_for_what_is_live() -> None:
    request = TokenRequest(
        id="a", prompt=(1, 2), sampling=Sampling(), max_tokens=3, end_tokens=frozenset({5})
    )
    fields = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name not in LIVE}
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(fields))
    assert sent["prompt"] == [1, 2]
    assert sent.keys() | LIVE == {f.name for f in dataclasses.fields(TokenRequest)}
    assert request.constraint is request.watcher is None


def test_an_output_is_plain() -> None:
    drawn = Drawn(token=3, logprob=-0.5, alternatives=((3, -0.5), (4, -1.0)))
    output = StepOutput(id="a", drawn=(drawn,), finish="stop", stats=SequenceStats(arrived_s=0.0))
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(dataclasses.asdict(output)))
    assert sent["drawn"][0]["alternatives"] == [[3, -0.5], [4, -1.0]]
