"""What answers amount to, the shape of loads, and the comparison with peers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from cli_support import Pentad
from pentad.application.bench import facts
from pentad.application.bench.answers import Slo, decode_rate, distribution_ms, is_good, percentile, summary
from pentad.application.bench.engine import EngineLoad, Measured
from pentad.application.bench.peers.comparing import compare, lines, ratio
from pentad.application.bench.plans import agent_runs, arrivals, chats, read_agent_traces, text
from pentad.application.bench.serving import medians
from pentad.application.bench.wire import text_of
from pentad.errors import BackendFailed, InvalidRequest
from pentad.resource.simulator.trace import TraceItem


def answer(sent_s: float, *events_s: float, tokens: int | None = None, **more: Any) -> dict[str, Any]:
    return {"sent_s": sent_s, "ended_s": events_s[-1] if events_s else sent_s, "events_s": list(events_s),
            "completion_tokens": tokens, "prompt_tokens": 10, "cached_tokens": 4} | more  # fmt: skip


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile([3, 1, 2, 4], share) for share in (0.5, 0.75, 0.99)] == [2, 3, 4]
    assert percentile([], 0.5) is None
    assert distribution_ms([0.1])["p99"] == 100.0


def test_a_request_is_good_when_it_meets_every_wish() -> None:
    one = answer(0.0, 1.0, 1.1, 1.2)
    assert is_good(one, Slo())
    assert is_good(one, Slo(ttft_s=1.0, itl_s=0.11))
    assert not is_good(one, Slo(ttft_s=0.9))
    assert not is_good(one, Slo(itl_s=0.09))
    assert not is_good(answer(0.0, 1.0, error="500"), Slo())


def test_rates_count_tokens_over_the_whole_time_and_leave_failures_out() -> None:
    played = {
        "answers": [
            answer(1.0, 2.0, 3.0, tokens=20),
            answer(1.0, 2.0, 5.0, tokens=20),
            answer(1.0, error="x"),
        ],
        "runs": [
            {"started_s": 1.0, "ended_s": 3.0, "complete": True},
            {"started_s": 1.0, "ended_s": 5.0, "complete": True},
            {"started_s": 1.0, "ended_s": 1.0, "complete": False},
        ],
        "cpu_seconds": 0.2,
        "seconds": 4.0,
    }
    found = summary(played, Slo(itl_s=2.0), 2)
    assert found["tokens_per_s"] == 10.0
    assert (found["requests"], found["failed"], found["good_fraction"]) == (3, 1, 0.3333)
    assert found["goodput_requests_per_s"] == 0.25
    assert found["mean_run_s"] == 3.0
    assert found["client_cpu_fraction"] == 0.05
    assert found["inter_token_ms"]["p50"] == 1000.0


def test_decoding_is_rated_in_the_times_when_all_are_generated() -> None:
    one = answer(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    late = answer(0.0, 3.0, 3.5, 4.0, tokens=6)
    assert decode_rate([one, late], 1) == pytest.approx((4 + 6) / 4)
    assert decode_rate([one, late], 2) == pytest.approx((1 + 4) / 1)
    assert decode_rate([one, late], 3) is None
    assert decode_rate([answer(0.0, 1.0)], 1) is None
    assert decode_rate([], 1) is None


def test_medians_reach_into_nested_numbers_and_skip_what_is_absent() -> None:
    rows = [{"a": 1, "b": {"c": None}}, {"a": 5, "b": {"c": 2}}, {"a": 3, "b": {"c": 4}}]
    assert medians(rows) == {"a": 3, "b": {"c": 3}}


def test_chats_share_the_system_prompt_and_nothing_else() -> None:
    found = chats(3, system_tokens=50, user_tokens=9, new_tokens=7, seed=1)
    assert len({run["messages"][0]["content"] for run in found}) == 1
    assert len({run["turns"][0]["user"] for run in found}) == 3
    assert len(found[0]["messages"][0]["content"].split()) == 50
    assert chats(3, system_tokens=50, user_tokens=9, new_tokens=7, seed=2)[0]["turns"] != found[0]["turns"]
    assert text(5, "x") == text(5, "x")


def test_arrivals_keep_the_times_and_lengths_of_their_trace() -> None:
    items = [TraceItem(id="a", arrival_s=1.5, prompt_tokens=30, output_tokens=8)]
    (run,) = arrivals(items, system_tokens=10, seed=0)
    assert run["at_s"] == 1.5
    assert run["turns"][0]["max_tokens"] == 8
    assert len(run["turns"][0]["user"].split()) == 20


def span(begin: str, end: str, content: str, answer: str) -> dict[str, Any]:
    messages = json.dumps([{"role": "user", "content": content}])
    return {"start_time": f"2026-02-25T10:00:{begin}", "end_time": f"2026-02-25T10:00:{end}",
            "attributes": {"gen_ai.input.messages": messages, "gen_ai.output.text": answer}}  # fmt: skip


def test_agent_traces_become_turns_with_their_pauses_and_repeat_when_short(tmp_path: pathlib.Path) -> None:
    spans = [span("03.000", "05.000", "second", "b" * 400), span("00.000", "02.500", "first", "a" * 40)]
    (tmp_path / "one.json").write_text(json.dumps({"spans": spans}))
    (shape,) = read_agent_traces(tmp_path, min_turns=3)
    assert shape == [("first", 0.0, 16), ("second", 0.5, 100), ("first", 0.0, 16)]
    runs = agent_runs(2, turns=[shape], system_tokens=5, seed=0)
    assert [len(run["turns"]) for run in runs] == [3, 3]
    assert runs[0]["turns"][0]["user"] != runs[1]["turns"][0]["user"]
    assert runs[0]["turns"][1] == {"user": "second", "pause_s": 0.5, "max_tokens": 100}


def test_a_file_that_is_no_trace_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.json").write_text('{"spans": [{}]}')
    with pytest.raises(InvalidRequest, match=r"bad\.json"):
        read_agent_traces(tmp_path, min_turns=1)


def test_the_text_of_an_answer_is_put_together_from_its_events() -> None:
    received = b'data: {"choices":[{"delta":{"content":"He"}}]}\n\n'
    received += b'data: {"choices":[{"delta":{"content":"y"}}]}\n\ndata: {"choices":[]}\n\ndata: [DONE]\n\n'
    assert text_of(received) == "Hey"


class FakePeer:
    """Twice as slow as what we are compared with, or broken."""

    def __init__(self, name: str, *, missing: str | None = None, broken_in: int = 99) -> None:
        self.name, self.form, self._missing, self._broken_in = name, "fake", missing, broken_in
        self.rounds = 0

    def missing(self) -> str | None:
        return self._missing

    def prepare(self, load: EngineLoad, threads: int) -> None:
        if self._broken_in == 0:
            raise BackendFailed("it crashed")

    def round(self) -> tuple[float, dict[int, float]]:
        self.rounds += 1
        if self.rounds == self._broken_in:
            raise BackendFailed("it crashed later")
        return 50.0, {1: 10.0 * self.rounds}


class FakeBench:
    def __init__(self) -> None:
        self.order: list[str] = []

    def round(self, found: Measured) -> None:
        self.order.append("ours")

    def limits(self) -> None:
        return None


def test_peers_take_turns_with_us_and_those_that_fail_are_left_out_aloud() -> None:
    good = FakePeer("good")
    peers = [good, FakePeer("away", missing="run scripts/peers away"), FakePeer("dead", broken_in=0),
             FakePeer("dying", broken_in=2)]  # fmt: skip
    bench, told = FakeBench(), []
    load = EngineLoad(batches=(1,), rounds=3)
    _, theirs, absent = compare(bench, peers, load, 2, told.append)  # type: ignore[arg-type]
    assert list(theirs) == ["good"]
    assert theirs["good"].decode == {1: [10.0, 20.0, 30.0]}
    assert absent == {
        "away": "not installed: run scripts/peers away",
        "dead": "it crashed",
        "dying": "it crashed later",
    }
    assert [line for line in told if "round 2" in line][:2] == ["round 2 of 3: pentad", "round 2 of 3: good"]
    ours = dict.fromkeys(("model", "prompt_tokens", "new_tokens", "context_tokens", "threads", "commit"), "-")
    ours |= {"kernels": "k", "prefill_tokens_per_s": 100.0, "decode_tokens_per_s": {"1": 60.0}}
    rows = lines(ours, theirs, peers, absent)
    assert rows[1]["ratio"] == {"prefill": 2.0, "1": 3.0}
    assert [row["engine"] for row in rows if "absent" in row] == ["away", "dead", "dying"]


def test_ratios_leave_out_batches_that_only_one_side_has() -> None:
    ours = {"prefill_tokens_per_s": 10, "decode_tokens_per_s": {"1": 4}}
    assert ratio(ours, {"prefill_tokens_per_s": None, "decode_tokens_per_s": {"1": 2, "8": 5}}) == {"1": 2.0}


def test_results_are_lines_that_are_added_to_a_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    for number in (1, 2):
        facts.append_line(file, {"n": number})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"n": 1}, {"n": 2}]
    assert {"cores", "processor", "isa"} <= facts.machine().keys()
    assert (facts.peak_rss_bytes() or 0) > 1 << 20
    assert facts.commit(tmp_path) is None


def test_a_batch_that_is_no_number_names_the_flag(pentad_: Pentad) -> None:
    outcome = pentad_("bench", "engine", "--batch", "1,x")
    assert outcome.status == 2
    assert "--batch 1,8,32" in outcome.err


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = pentad_("bench", "peers", "--plot", "out.svg")
    assert outcome.status != 0
    assert "pip install 'pentad[bench]'" in outcome.err
