"""The setting `device`: where it leads, what `auto` makes of it, and what doctor says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from native_support import HERE, random_weights, tiny_spec
from pentad.application.cli.doctor import _cuda
from pentad.application.config import EngineSettings
from pentad.application.runners import choose
from pentad.errors import Incompatible


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many GPUs PyTorch sees."""

    def see(count: int) -> None:
        properties = SimpleNamespace(name="Test GPU", total_memory=80 << 30, major=9, minor=0)
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: properties)

    return see


def chosen(**settings: Any) -> tuple[str, str]:
    spec = tiny_spec()
    files: Any = SimpleNamespace(name="tiny", spec=spec, weights=random_weights(spec, "Q8_0"))
    choice = choose(files, EngineSettings(**settings))
    return choice.runner, choice.device


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_auto_leaves_what_the_native_kernels_can_do_to_them(gpus: Any) -> None:
    gpus(1)
    assert chosen() == ("native", "cpu")


def test_auto_takes_a_gpu_where_pytorch_computes_and_sees_one(gpus: Any) -> None:
    gpus(1)
    assert chosen(kernels="torch") == ("torch", "cuda:0")
    assert chosen(kernels="torch", device="cpu") == ("torch", "cpu")
    gpus(0)
    assert chosen(kernels="torch") == ("torch", "cpu")


def test_a_gpu_that_is_asked_for_is_taken_or_refused_by_name(gpus: Any) -> None:
    gpus(2)
    assert chosen(device="cuda") == ("torch", "cuda:0")
    assert chosen(device="cuda:1") == ("torch", "cuda:1")
    with pytest.raises(Incompatible, match="'cuda:2' is not there: PyTorch sees 2 CUDA devices"):
        chosen(device="cuda:2")
    gpus(0)
    with pytest.raises(Incompatible, match=r"'cuda' is not there: .* sees no CUDA device; set device to cpu"):
        chosen(device="cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        EngineSettings(device=name)


def test_doctor_names_the_gpus_and_is_troubled_only_by_one_that_is_asked_for(gpus: Any) -> None:
    gpus(1)
    (found,) = _cuda("auto")
    assert (found.state, found.detail) == ("ok", "cuda:0 Test GPU, 80 GiB, 9.0")
    assert [finding.state for finding in _cuda("cuda:1")] == ["trouble"]
    gpus(0)
    assert [finding.state for finding in _cuda("auto")] == ["absent"]
    (missing,) = _cuda("cuda")
    assert (missing.state, missing.hint) == (
        "trouble",
        "set device to cpu, or install a CUDA build of PyTorch",
    )
