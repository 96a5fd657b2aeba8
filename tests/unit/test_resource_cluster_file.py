"""Cluster files: what is written is what is planned for; mistakes name entry, field and remedy."""

from __future__ import annotations

import itertools
import pathlib

import pytest
from resource_samples import LLAMA_1B, measured_device

from pentad.errors import PentadError
from pentad.execution.device import Link
from pentad.resource.cluster_file import read_cluster
from pentad.resource.placement import Workload, plan
from pentad.resource.profile import save

WHOLE = """
link: {bytes_per_s: 125e6, latency_s: 1e-4}
devices:
  - {name: gpu, profile: h100-sxm, count: 2, price_per_hour: 3.5}
  - {name: edge, profile: ./edge.json, power_w: 15}
links:
  - {between: [gpu-1, gpu-2], bytes_per_s: 450e9, latency_s: 2e-6}
  - {source: edge, target: gpu-1, bytes_per_s: 12500000, latency_s: 0.02}
"""


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    save(measured_device(), folder / "edge.json")
    file = folder / "cluster.yaml"
    file.write_text(text)
    return file


def test_devices_links_prices_and_power_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    cluster = read_cluster(written(tmp_path, WHOLE))
    assert [device.name for device in cluster.devices] == ["gpu-1", "gpu-2", "edge"]
    assert cluster.device("gpu-2").price_per_hour == 3.5
    assert cluster.device("edge").power_w == 15
    assert cluster.device("edge").source == "measured"
    pairs = itertools.permutations([device.name for device in cluster.devices], 2)
    links = {pair: link for pair in pairs if (link := cluster.link(*pair)) is not None}
    assert len(links) == 6
    fast = Link(source="gpu-2", target="gpu-1", bytes_per_s=450e9, latency_s=2e-6)
    assert links["gpu-2", "gpu-1"] == fast
    assert links["edge", "gpu-1"].latency_s == 0.02
    assert links["gpu-1", "edge"] == Link(source="gpu-1", target="edge", bytes_per_s=125e6, latency_s=1e-4)


def test_a_plan_is_made_for_it(tmp_path: pathlib.Path) -> None:
    cluster = read_cluster(written(tmp_path, WHOLE))
    found = plan("replicated", LLAMA_1B, cluster, Workload(concurrency=4))
    assert {stage.device for stage in found.stages} == {"gpu-1", "gpu-2", "edge"}


def test_without_a_default_link_only_what_is_listed_is_joined(tmp_path: pathlib.Path) -> None:
    text = WHOLE.replace("link: {bytes_per_s: 125e6, latency_s: 1e-4}\n", "")
    assert len(read_cluster(written(tmp_path, text)).links) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("h100-sxm", "h1000", "unknown device 'h1000'; did you mean 'h100-sxm'"),
        ("count: 2", "count: 0", r"devices\[0\].count is 0; it must be at least 1"),
        ("count: 2", "count: 99999", "at most 4096"),
        (
            "count: 2",
            "counts: 2",
            r"devices\[0\] has the unknown key 'counts'; keys are profile",
        ),
        ("power_w: 15", "power_w: -1", r"devices\[1\].power_w is -1.0; it must be above 0"),
        ("power_w: 15", "power_w: .nan", "power_w is nan"),
        ("name: edge", "name: gpu-1", "two devices are called 'gpu-1'; give each its own name"),
        ("[gpu-1, gpu-2]", "[gpu-1, gpu-9]", r"links\[0\] names 'gpu-9', which is no device of the file"),
        ("[gpu-1, gpu-2]", "[gpu-1]", r"links\[0\]: "),
        ("between: [gpu-1, gpu-2]", "source: gpu-1", r"links\[0\] must name two devices; write between"),
        (
            "source: edge, target: gpu-1",
            "between: [gpu-1, gpu-2]",
            "describes gpu-1 to gpu-2 again",
        ),
        ("bytes_per_s: 450e9", "bytes_per_s: 0", "link_bytes_per_s is 0.0; it must be above 0"),
        ("bytes_per_s: 450e9", "bytes_per_s: fast", r"links\[0\]: Expected `float"),
        ("./edge.json", "./nowhere.json", "there is no device profile at"),
        ("links:", "lynx:", "unknown key 'lynx'; keys are link, devices, links"),
        ("devices:", "machines:", r"lists no devices; write devices: \[\{name: NAME"),
    ],
)
def test_a_mistake_names_the_entry_and_the_remedy(
    tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(PentadError, match=message):
        read_cluster(written(tmp_path, WHOLE.replace(old, new, 1)))


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_what_is_no_cluster_file_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(PentadError, match="cluster file"):
        read_cluster(written(tmp_path, text))
    with pytest.raises(PentadError, match="cannot be read: No such file"):
        read_cluster(tmp_path / "nowhere.yaml")
