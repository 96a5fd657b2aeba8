"""Devices and precisions by name, and what PyTorch sees of them."""

from __future__ import annotations

from typing import Literal

import torch

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.torch.linear import bfloat16_in_hardware

Precision = Literal["auto", "float32", "bfloat16"]

AUTO = "auto"

BFLOAT16_CAPABILITY = (8, 0)
"""Of the oldest NVIDIA GPUs whose tensor cores take bfloat16."""


def resolve_dtype(asked: Precision, device: torch.device) -> torch.dtype:
    """The compute precision. Raises InvalidRequest for a name that is none."""
    if asked not in ("auto", "float32", "bfloat16"):
        raise InvalidRequest(
            f"dtype {asked!r} is unknown", hint="use auto, float32 or bfloat16", param="dtype"
        )
    if asked != "auto":
        return torch.float32 if asked == "float32" else torch.bfloat16
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    else:
        native = bfloat16_in_hardware()
    return torch.bfloat16 if native else torch.float32


def resolve_device(name: str) -> torch.device:
    """The device of that name, with a number where it is a GPU.

    Raises:
        InvalidRequest: no such device.
        Incompatible: it is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InvalidRequest(f"device {name!r} is unknown", hint="use cpu, cuda or cuda:N", param="device")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise Incompatible(
            f"device {name!r} is not there: PyTorch {torch.__version__} sees no CUDA device",
            hint="set device to cpu, or install a CUDA build of PyTorch",
            param="device",
        )
    if (device.index or 0) >= torch.cuda.device_count():
        raise Incompatible(
            f"device {name!r} is not there: PyTorch sees {torch.cuda.device_count()} CUDA devices",
            hint="use a lower number, counted from 0",
            param="device",
        )
    return torch.device("cuda", device.index or 0)


def pick_device(asked: str) -> str:
    """The device asked for, if it is there; for `auto` the GPU where there is one. Raises as above."""
    if asked == AUTO:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return str(resolve_device(asked))


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that nothing uses now."""
    return int(torch.cuda.mem_get_info(device)[0])


def cuda_devices() -> list[str]:
    """A line per CUDA device that PyTorch sees: name, memory, compute capability."""
    if not torch.cuda.is_available():
        return []
    found = [(i, torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())]
    return [f"cuda:{i} {p.name}, {p.total_memory / 2**30:.0f} GiB, {p.major}.{p.minor}" for i, p in found]
