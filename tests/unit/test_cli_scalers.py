"""What fleet scalers see from the command line: rented machines, spot devices, announced ends."""

from __future__ import annotations

import json
import pathlib

import pytest
from test_cli_fleet import SIZES

from cli_support import Pentad
from pentad.errors import InvalidRequest
from pentad.resource.cluster_file import read_cluster

CLUSTER = """
link: {bytes_per_s: 1.25e9, latency_s: 5e-4}
devices:
  - {name: owned, profile: rtx-4090, price_per_hour: 0.6, cold_start_s: 2}
  - {name: node, profile: rtx-4090, count: 2, host: node-a, price_per_hour: 0.4, cold_start_s: 2}
  - {name: spare, profile: rtx-4090, count: 2, spot: true, price_per_hour: 0.15, cold_start_s: 2}
hosts:
  - {name: node-a, price_per_hour: 0.2, start_s: 4}
"""


@pytest.fixture
def words(tmp_path: pathlib.Path) -> list[str]:
    """A load on one device of our own, a rented machine with two, and two that may be taken back."""
    config = tmp_path / "small" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(SIZES), encoding="utf-8")
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER, encoding="utf-8")
    return [
        *("simulate", "poisson", "--model", str(config), "--cluster", str(cluster)),
        *("--limit", "60", "--rate-per-s", "6", "--kv-blocks", "500", "--max-sequences", "4", "--json"),
    ]


def test_a_rented_machine_is_paid_for_and_starts_before_its_devices_do(
    pentad_: Pentad, words: list[str]
) -> None:
    everything = json.loads(pentad_(*words, "--scaler", "fixed").out)
    up_s = max(engine["up_s"] for engine in everything["engines"] if engine["name"].startswith("node"))
    assert everything["host_cost"] == pytest.approx(0.2 / 3600 * up_s, rel=1e-6)
    assert everything["cost"] > everything["host_cost"]
    mixed = json.loads(pentad_(*words, "--scaler", "infaas").out)
    assert mixed["completed"] == 60
    assert mixed["cost"] < everything["cost"]


def test_spotserve_takes_spot_devices_and_leaves_them_when_their_end_is_announced(
    pentad_: Pentad, words: list[str]
) -> None:
    def given(*outages: str) -> dict[str, int]:
        told = json.loads(pentad_(*words, "--scaler", "spotserve", *outages).out)
        assert told["completed"] == 60
        return {engine["name"]: engine["requests"] for engine in told["engines"]}

    calm = given()
    spare = {"spare-1", "spare-2"}
    assert min(calm[name] for name in spare) > 0
    assert calm["owned"] == 0, "the dearest for what it answers"
    gone = given("--outage", "spare-1:at_s=5,notice_s=4", "--outage", "spare-2:at_s=5,notice_s=4")
    assert sum(gone[name] for name in spare) < sum(calm[name] for name in spare)


def test_shepherd_runs_from_the_command_line(pentad_: Pentad, words: list[str]) -> None:
    assert json.loads(pentad_(*words, "--scaler", "shepherd").out)["completed"] == 60


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("[{name: node-b}]", "no device has it"),
        ("[{name: node-a}, {name: node-a}]", "twice"),
        ("[{name: node-a, start_s: -1}]", "host_start_s"),
        ("[{name: node-a, price: 1}]", "unknown key"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(tmp_path: pathlib.Path, hosts: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    device = "devices: [{name: a, profile: rtx-4090, host: node-a}]"
    file.write_text(f"{device}\nhosts: {hosts}\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=words):
        read_cluster(file)
