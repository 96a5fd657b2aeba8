"""The verbs of `pentad bench` as a user runs them, on a real model and in tiny sizes."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

from process_support import PENTAD, environment, home_with, pentad

pytestmark = pytest.mark.model("smollm2-135m")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path) -> pathlib.Path:
    return home_with(tmp_path_factory.mktemp("home"), {"smollm2-135m": smollm2_path})


def test_bench_engine_prints_one_line_in_the_fixed_form(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sizes = (
        "--prompt-tokens",
        "32",
        "--new-tokens",
        "4",
        "--batch",
        "1,2",
        "--threads",
        "1",
        "--rounds",
        "1",
    )
    kept = tmp_path / "results.jsonl"
    done = pentad(home, "bench", "engine", "--model", "smollm2-135m", *sizes, "--json", "--out", str(kept))
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["prefill_tokens_per_s"] > 0
    assert set(found["decode_tokens_per_s"]) == {"1", "2"}
    assert 0 < found["roofline_fraction"] < 1.5
    assert found["limits"]["memory_bytes_per_s"] > 1e8
    assert found["peak_rss_bytes"] > 50e6
    assert {"kernels", "commit", "machine"} <= found.keys()
    assert json.loads(kept.read_text()) == found
    if found["kernels"] != "torch":
        step_ms = 1e3 / found["decode_tokens_per_s"]["1"]
        assert 0 < sum(found["phases_ms"]["1"].values()) < 3 * step_ms
        assert found["phases_ms"]["1"]["gate_up"] > 0


def test_bench_engine_shows_a_table_without_json(home: pathlib.Path) -> None:
    sizes = ("--prompt-tokens", "16", "--new-tokens", "2", "--batch", "1", "--rounds", "1")
    done = pentad(home, "bench", "engine", *sizes)
    assert done.returncode == 0, done.stderr
    assert "prefill" in done.stdout
    assert "roofline:" in done.stdout


def test_bench_serve_reports_latency_rate_and_its_share_of_the_engine(home: pathlib.Path) -> None:
    load = ("--concurrency", "2", "--per-client", "1", "--system-tokens", "40", "--new-tokens", "32")
    slo = ("--ttft-slo", "100", "--itl-slo", "100")
    done = pentad(home, "bench", "serve", *load, *slo, "--rounds", "1", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["requests"], found["failed"], found["good_fraction"]) == (2, 0, 1)
    assert found["completion_tokens"] == 2 * 32, "ignore_eos gives as many tokens as were asked for"
    assert found["ttft_ms"]["p50"] > 0
    assert found["inter_token_ms"]["p99"] > 0
    assert found["cached_tokens"] > 0, "the shared system prompt is found in the cache"
    assert found["engine_share"] > 0
    assert found["peak_rss_bytes"] > 50e6
    assert 0 < found["client_cpu_fraction"] < 1


def test_bench_serve_plays_the_arrivals_of_a_trace(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    rows += [f"2023-11-16 18:17:0{i}.0000000,{20 + i},{3 + i}" for i in range(3)]
    trace.write_text("\n".join(rows) + "\n")
    done = pentad(home, "bench", "serve", "--trace", str(trace), "--rate", "10", "--system-tokens", "0",
                  "--rounds", "1", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["requests"], found["completion_tokens"]) == (3, 3 + 4 + 5)
    assert found["seconds"] >= 0.2, "the last one arrives a fifth of a second after the first"


def test_bench_agents_completes_every_turn_of_its_runs(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    message = json.dumps([{"role": "user", "content": "Where is it?"}])
    attributes = {"gen_ai.input.messages": message, "gen_ai.output.text": "There."}
    stamps = [("10:00:00.0", "10:00:01.0"), ("10:00:01.1", "10:00:02.0")]
    spans = [{"start_time": f"2026-01-01T{a}", "end_time": f"2026-01-01T{b}", "attributes": attributes}
             for a, b in stamps]  # fmt: skip
    (tmp_path / "trace.json").write_text(json.dumps({"spans": spans}))
    done = pentad(home, "bench", "agents", "--runs", "2", "--turns", "2", "--traces", str(tmp_path),
                  "--system-tokens", "40", "--rounds", "1", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["runs"], found["requests"], found["failed"]) == (2, 4, 0)
    assert found["mean_run_s"] >= 0.1, "a run lasts at least as long as its pauses"


def test_bench_peers_says_what_is_missing_and_how_to_install_it(
    home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = [
        PENTAD,
        "bench",
        "peers",
        "--prompt-tokens",
        "16",
        "--context-tokens",
        "8",
        "--new-tokens",
        "2",
    ]
    done = subprocess.run(
        [*command, "--batch", "1", "--rounds", "1", "--json"],
        env=environment(home) | {"PENTAD_PEERS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert ours["engine"] == "pentad"
    assert ours["decode_tokens_per_s"]["1"] > 0
    assert {peer["engine"] for peer in others} >= {"llama.cpp", "llama.cpp-q4_0", "openvino"}
    assert all("scripts/peers" in peer["absent"] for peer in others)
