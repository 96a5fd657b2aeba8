"""profile, plan and simulate on published devices: numbers, remedies, exit status."""

from __future__ import annotations

import json
import pathlib

import pytest

from cli_support import Pentad

pytestmark = pytest.mark.thorough


def test_profile_lists_and_shows_published_devices(pentad_: Pentad) -> None:
    names = [device["name"] for device in json.loads(pentad_("profile", "--list", "--json").out)]
    assert "h100-sxm" in names
    assert json.loads(pentad_("profile", "--show", "h100-sxm", "--json").out)["source"] == "published"
    assert "h100-sxm" in pentad_("profile", "--list").out


@pytest.fixture
def bare_config(tmp_path: pathlib.Path) -> str:
    """The published sizes of a Llama of 8 billion parameters, without weights."""
    folder = tmp_path / "llama-8b"
    folder.mkdir()
    sizes = {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
    }
    (folder / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    return str(folder / "config.json")


def test_plan_predicts_from_a_bare_config_and_a_published_device(pentad_: Pentad, bare_config: str) -> None:
    outcome = pentad_("plan", bare_config, "--device", "h100-sxm", "--json")
    made = json.loads(outcome.out)
    assert (outcome.status, made["model"], made["source"]) == (0, "llama-8b", "published")
    assert made["stages"][0]["weight_bytes"] == pytest.approx(2 * 8.03e9, rel=0.01)
    assert made["ttft_s"] > made["inter_token_s"] > 0
    assert "between tokens" in pentad_("plan", bare_config, "--device", "h100-sxm").out


def test_plan_splits_over_devices_of_one_name(pentad_: Pentad, bare_config: str) -> None:
    devices = ["--device", "rtx-4090"] * 2
    made = json.loads(pentad_("plan", bare_config, *devices, "--strategy", "uniform", "--json").out)
    assert [(s["device"], s["first_layer"], s["end_layer"]) for s in made["stages"]] == [
        ("rtx-4090-1", 0, 16),
        ("rtx-4090-2", 16, 32),
    ]


def test_plan_that_does_not_fit_exits_3_and_names_the_way_out(pentad_: Pentad, bare_config: str) -> None:
    outcome = pentad_("plan", bare_config, "--device", "jetson-orin-nano-super-8gb")
    assert (outcome.status, outcome.out) == (3, "")
    assert "weights 15.0 GiB" in outcome.err
    assert "hint: set --weight-bits 4" in outcome.err
    remedied = pentad_("plan", bare_config, "--device", "jetson-orin-nano-super-8gb", "--weight-bits", "4")
    assert remedied.status == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--device", "abacus"], 2, "unknown device 'abacus'"),
        ([], 2, "there is no device profile"),
        (["--device", "h100-sxm", "--concurrency", "0"], 2, "concurrency is 0"),
        (["--device", "h100-sxm", "--strategy", "best"], 2, "unknown placement 'best'"),
        (["--device", "h100-sxm", "--ttft-s", "1e-9"], 3, "ttft_s"),
    ],
)
def test_plan_refuses_what_cannot_be(
    pentad_: Pentad, bare_config: str, words: list[str], status: int, message: str
) -> None:
    outcome = pentad_("plan", bare_config, *words)
    assert outcome.status == status
    assert message in outcome.err.splitlines()[0]


def test_simulate_reports_percentiles_and_is_repeatable(pentad_: Pentad, bare_config: str) -> None:
    words = ["simulate", "poisson", "--model", bare_config, "--device", "h100-sxm", "--limit", "20"]
    first, again = pentad_(*words, "--json"), pentad_(*words, "--json")
    assert first.out == again.out
    assert json.loads(first.out)["completed"] == 20
    shown = pentad_(*words, "--ttft-s", "10").out
    assert "between tokens" in shown
    assert "within objective     100.0%" in shown


def test_simulate_reads_a_trace_of_arrivals(
    pentad_: Pentad, bare_config: str, tmp_path: pathlib.Path
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        encoding="utf-8",
    )
    words = ["simulate", str(trace), "--model", bare_config, "--device", "h100-sxm", "--json"]
    assert json.loads(pentad_(*words).out)["generated_tokens"] == 44 + 109


def test_simulate_refuses_an_unknown_trace_and_choice(pentad_: Pentad, bare_config: str) -> None:
    words = ["--model", bare_config, "--device", "h100-sxm"]
    assert pentad_("simulate", "trace.parquet", *words).status == 2
    assert "'cut'" in pentad_("simulate", "poisson", *words, "--too-long", "cut").err


def test_plan_fills_a_matrix_of_models_by_devices(pentad_: Pentad, bare_config: str) -> None:
    words = ["plan", "--models", bare_config, "--devices", "h100-sxm,jetson-orin-nano-super-8gb"]
    big, small = json.loads(pentad_(*words, "--json").out)
    assert big["plan"]["stages"][0]["device"] == "h100-sxm"
    assert small["binding"] == "memory"
    assert small["hint"] == "set --weight-bits 4 or add a device"
    table = pentad_(*words).out
    assert "tok/s, first in" in table
    assert "no: memory" in table
    fits = pentad_("plan", bare_config, "--devices", "all", "--weight-bits", "4", "--json")
    refused = {pair["device"]: pair for pair in json.loads(fits.out) if "plan" not in pair}
    assert "no operator 'batch_matmul'" in refused.pop("coral-edge-tpu-usb")["error"]
    small = {"glasses-ar1", "groq-lpu-v1", "kria-kv260", "phone-4gb"}
    assert {pair["device"] for pair in refused.values() if pair["binding"] == "memory"} >= small
    assert {pair["device"] for pair in refused.values() if pair["binding"] == "device"} == {
        "hermes-64core",
        "isaac-ce",
    }


SWEEP = ("simulate", "poisson", "--model", "CONFIG", "--device", "h100-sxm", "--rates")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["plan"], 2, "give one MODEL"),
        (["plan", "m", "--models", "a"], 2, "give one MODEL"),
        (["plan", "--models", "all"], 2, "the store has no models"),
        (["plan", "--models", ","], 2, "--models is ','"),
        (["plan", "CONFIG", "--device", "h100-sxm", "--devices", "h100-sxm"], 2, "leave one out"),
        (["plan", "CONFIG", "--devices", "abacus"], 2, "unknown device 'abacus'"),
        ([*SWEEP, "1"], 2, "none is set"),
        ([*SWEEP, "1,x", "--ttft-s", "1"], 2, "'1,x'"),
        ([*SWEEP, "1,nan", "--ttft-s", "1"], 2, "nan"),
    ],
)
def test_plan_and_simulate_refuse_what_makes_no_sense(
    pentad_: Pentad, bare_config: str, words: list[str], status: int, message: str
) -> None:
    outcome = pentad_(*(bare_config if word == "CONFIG" else word for word in words))
    assert outcome.status == status
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 2


def test_plan_exits_3_where_no_pair_fits(pentad_: Pentad, bare_config: str) -> None:
    words = ["plan", bare_config, "--devices", "h100-sxm", "--ttft-s", "0"]
    assert pentad_(*words).status == 3


def test_simulate_at_several_rates_finds_the_knee(pentad_: Pentad, bare_config: str) -> None:
    words = ["simulate", "poisson", "--model", bare_config, "--device", "rtx-4090", "--limit", "12"]
    sweep = [*words, "--rates", "0.5,64", "--ttft-s", "0.5"]
    found = json.loads(pentad_(*sweep, "--json").out)
    assert [point["rate_per_s"] for point in found["rates"]] == [0.5, 64]
    assert 0.5 < found["knee_per_s"] < 64
    assert f"knee  {found['knee_per_s']:.3g} requests/s" in pentad_(*sweep).out


def test_rate_scale_acts_on_poisson_arrivals_too(pentad_: Pentad, bare_config: str) -> None:
    words = ["simulate", "poisson", "--model", bare_config, "--device", "h100-sxm", "--limit", "20", "--json"]
    plain, fast = (json.loads(pentad_(*words, "--rate-scale", scale).out)["span_s"] for scale in ("1", "10"))
    assert fast < plain / 5


def test_simulate_names_a_precision_only_if_it_helps(pentad_: Pentad, bare_config: str) -> None:
    words = ["simulate", "poisson", "--model", bare_config, "--limit", "2", "--device"]
    outcome = pentad_(*words, "jetson-orin-nano-super-8gb")
    assert (outcome.status, outcome.err.splitlines()[-1]) == (3, "hint: set --weight-bits 4")
    assert pentad_(*words, "jetson-orin-nano-super-8gb", "--weight-bits", "4").status == 0


def test_a_cluster_file_gives_the_devices_of_a_plan(
    pentad_: Pentad, bare_config: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("link: {bytes_per_s: 1e9, latency_s: 1e-4}\ndevices: [{profile: rtx-4090, count: 2}]\n")
    arguments = ("plan", bare_config, "--cluster", str(file), "--strategy", "replicated")
    made = json.loads(pentad_(*arguments, "--json").out)
    assert [r["stages"][0]["device"] for r in made["replicas"]] == ["rtx-4090-1", "rtx-4090-2"]
    assert "rtx-4090-2, 50% of requests" in pentad_(*arguments).out
    refused = pentad_(*arguments, "--device", "local")
    assert refused.status == 2
    assert "leave --device and --devices out" in refused.err
