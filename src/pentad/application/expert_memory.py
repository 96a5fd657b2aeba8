"""The setting `expert_memory`: a size, and which experts stay in it."""

from __future__ import annotations

from pentad.application.config_loading import parse_bytes
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.native.paging import ExpertMemory

_DEFAULT = "recent"


def read_expert_memory(text: str | None, runner: str = "native") -> ExpertMemory | None:
    """The bound as `SIZE` or `SIZE:NAME:OPTION=VALUE,...`. Raises InvalidRequest, Incompatible."""
    if text is None:
        return None
    if runner != "native":
        raise Incompatible(
            "memory for experts is bounded by the native kernels alone, but PyTorch computes",
            hint="leave expert_memory out, or set kernels to auto",
            param="expert_memory",
        )
    size, _, policy = text.partition(":")
    try:
        nbytes = parse_bytes(size)
    except ValueError as error:
        raise InvalidRequest(
            f"expert_memory is {text!r}: {error}",
            hint="write it as 2GiB, or as 2GiB:recent",
            param="expert_memory",
        ) from None
    return ExpertMemory(nbytes=nbytes, policy=build("expert_cache", Choice.of(policy or _DEFAULT)))
