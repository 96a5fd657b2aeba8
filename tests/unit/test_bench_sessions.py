"""Sessions played on servers: what is asked, what the answers amount to, and the judge of the cache."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from cli_support import Pentad
from pentad.application.bench.sessions import least_missed_tokens, numbers, records_of, requests_of
from pentad.resource.simulator import SessionScale, TraceItem, read_trace
from pentad.resource.simulator.trace import prompt_of
from pentad.types import Hints

ITEMS = (
    TraceItem(
        id="r/0", prompt_tokens=32, output_tokens=2, segments=((1, 32),), run="r", hints=Hints(next="tool")
    ),
    TraceItem(
        id="r/1", prompt_tokens=40, output_tokens=2, segments=((1, 32),), run="r", after="r/0", pause_s=2.0
    ),
    TraceItem(id="s/0", prompt_tokens=20, output_tokens=1, segments=((2, 20),), run="s"),
)


def answer(name: str, due_s: float, ended_s: float, cached: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"id": name, "due_s": due_s, "sent_s": due_s, "ended_s": ended_s, "events_s": [ended_s],
            "cached_tokens": cached} | more  # fmt: skip


def test_requests_are_token_prompts_and_tell_of_their_runs_only_where_that_is_understood() -> None:
    told, plain = (requests_of(ITEMS, 100, seed=3, hinted=hinted) for hinted in (True, False))
    assert told[0]["body"]["prompt"] == plain[0]["body"]["prompt"] == prompt_of(ITEMS[0], 100, seed=3)
    assert told[0]["body"]["pentad"] == {"run_id": "r", "hints": {"next": "tool"}}
    assert (told[1]["parent"], told[1]["waits_for"], told[1]["pause_s"]) == ("r/0", ("r/0",), 2.0)
    assert all("pentad" not in one["body"] and one["parent"] is None for one in plain)
    assert requests_of(ITEMS, 100, seed=4, hinted=False)[0]["body"]["prompt"] != plain[0]["body"]["prompt"]


def test_a_run_counts_from_its_first_arrival_to_its_last_token_and_only_when_it_is_whole() -> None:
    whole = [
        answer("r/0", 1.0, 2.0),
        answer("r/1", 4.0, 5.5, cached=32),
        answer("s/0", 0.0, 0.5, cached=None),
    ]
    found = numbers(ITEMS, records_of(ITEMS, whole))
    assert (found["run_s"]["mean"], found["run_s"]["largest"]) == (2.5, 4.5)
    assert (found["prompt_tokens"], found["missed_tokens"], found["failed"]) == (92, 60, 0)
    broken = [answer("r/0", 1.0, 2.0), answer("r/1", 4.0, 5.5, error="500"), whole[2]]
    found = numbers(ITEMS, records_of(ITEMS, broken))
    assert (found["runs"], found["runs_done"], found["failed"], found["run_s"]["mean"]) == (2, 1, 1, 0.5)
    found = numbers(ITEMS, records_of(ITEMS, [answer("r/0", 1.0, 2.0, error="500"), whole[2]]))
    assert (found["runs_done"], found["failed"]) == (1, 2)


def test_the_least_that_is_missed_is_beladys_on_the_order_in_which_requests_came() -> None:
    """Blocks of 16: r/0 has A B, s/0 has C, r/1 has A B and 8 tokens that fill no block."""
    came = [answer("r/0", 1.0, 2.0), answer("s/0", 3.0, 3.5), answer("r/1", 4.0, 5.5)]
    records = records_of(ITEMS, came)
    assert least_missed_tokens(records, 100, blocks=3, block_size=16) == 3 * 16 + 4 + 8
    assert least_missed_tokens(records, 100, blocks=1, block_size=16) == 4 * 16 + 4 + 8


def test_some_sessions_of_a_folder_are_taken_and_begin_one_after_the_other(tmp_path: pathlib.Path) -> None:
    for name in "abcdef":
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"requests": [{"type": "n", "in": 4, "out": 1, "block_ranges": [[1, 1]]}]})
        )
    items = read_trace(tmp_path, scale=SessionScale(first=1, every=2, most=2, runs_per_s=4))
    assert [(item.run, item.arrival_s) for item in items] == [("b", 0.0), ("d", 0.25)]


@pytest.mark.parametrize("wrong", ["scheduler", "scheduler=fcfs colour=red"])
def test_settings_that_our_server_does_not_have_are_refused_with_an_example(
    pentad_: Pentad, tmp_path: pathlib.Path, wrong: str
) -> None:
    done = pentad_("bench", "sessions", str(tmp_path), "--with", wrong)
    assert done.status == 2
    assert "sets nothing of our server" in done.err
    assert "kv_eviction=least-recent" in done.err
