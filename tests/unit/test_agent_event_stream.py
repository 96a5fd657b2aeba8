"""A run's text for its followers: piece by piece for few, collected for many, before what repeats it."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from agent_support import harness, run, spec
from pentad.agent.events import Record
from pentad.agent.model_events import ModelAnswered, ModelAsked, TextStreamed
from pentad.application.gateway.translate.runs import RecordFrames

PIECES = [f"{number} " for number in range(50)]


@pytest.mark.parametrize(("followers", "pieces"), [(1, 50), (4, 50), (5, 1), (40, 1)])
def test_every_follower_gets_the_whole_text_before_the_answer(
    tmp_path: pathlib.Path, followers: int, pieces: int
) -> None:
    async def scenario() -> None:
        asked = 0
        all_follow = asyncio.Event()

        async def follow(run_id: str) -> list[Record]:
            nonlocal asked
            records = []
            async for record in h.runtime.events(run_id):
                records.append(record)
                if isinstance(record.event, ModelAsked):
                    asked += 1
                    if asked == followers:
                        all_follow.set()
            return records

        async with harness(tmp_path, [[all_follow, *PIECES]]) as h:
            run_id = await h.runtime.start(spec(), "count")
            seen = await asyncio.gather(*(follow(run_id) for _ in range(followers)))
        for records in seen:
            kinds = [type(record.event) for record in records]
            texts = [record.event.text for record in records if isinstance(record.event, TextStreamed)]
            assert "".join(texts) == "".join(PIECES)
            assert len(texts) == pieces
            assert kinds.index(ModelAnswered) > len(kinds) - 1 - kinds[::-1].index(TextStreamed)

    run(scenario())


def test_a_record_is_encoded_once_for_all_who_follow() -> None:
    frames = RecordFrames()
    records = [
        Record(
            run_id="r",
            sequence=3,
            at_s=1.0,
            clock_s=1.0,
            event=TextStreamed(step=1, attempt=1, purpose="act", text=str(number)),
        )
        for number in range(200)
    ]
    first = [frames.of(record) for record in records]
    assert all(str(number).encode() in frame for number, frame in enumerate(first))
    assert frames.of(records[-1]) is first[-1]
    assert frames.of(records[0]) == first[0]
