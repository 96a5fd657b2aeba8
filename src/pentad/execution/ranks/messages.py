"""What the ranks of a group say to each other.

rank 0                              another rank
                                 <- | Hello: where it listens, what it has loaded
Setup, Weight ..., Peers         -> |
                                 <- | Ready
Step, Copy, Stop                 -> |
Rows                            <-> | of any two ranks: hidden states, keys and values, logits

Processes have a number for good, their seat. When one is lost the others come again, with what they have
loaded, and the group is formed anew: a rank is a place in the layout, which may be another one then.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import numpy as np

from pentad.errors import BackendFailed, Incompatible
from pentad.execution.batch import RaggedBatch
from pentad.execution.transport.base import Buffer, Received
from pentad.execution.transport.wire import Wire

_FIELDS: Final = (
    "token_ids",
    "positions",
    "slots",
    "starts",
    "context_lens",
    "block_tables",
    "logit_rows",
    "drafted",
    "tree_slots",
    "tree_masks",
    "embeddings",
    "embedding_rows",
    "state_rows",
    "state_saves",
)
_DTYPES: Final = frozenset({"<i4", "<u8", "<f4"})


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A rank is there, and others of the group reach it at `address`."""

    address: str
    holds: bytes = b""
    """Which part of which model it has loaded (`Setup.part`); empty: none."""


class Setup(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What a rank computes, and how."""

    rank: int
    spec: Any
    layout: Any
    num_blocks: int
    block_size: int
    dtype: str
    device: str
    threads: int
    codec: str
    kernels: str = "torch"
    """What computes: torch, or what the setting `kernels` calls native ones."""

    @property
    def part(self) -> bytes:
        """Names the part of the model: who has it loaded needs no weights for this."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()


class Weight(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A part of a tensor, in its buffer; the last part ends it."""

    name: str
    format: str
    shape: tuple[int, ...]
    last: bool
    extra: bool


class Peers(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """All weights were sent; where each rank listens. Each connects to those in front of it."""

    addresses: tuple[str, ...]
    seats: tuple[int, ...]
    """Of each rank."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The rank computes."""

    weight_bytes: int
    kv_block_bytes: int


class Step(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A step's batch; its arrays are the buffers."""

    fields: tuple[tuple[str, str, tuple[int, ...]], ...]
    pieces: int
    """In how many parts it goes through the pipeline."""


class Copy(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Moves what the cache holds: `block`, `slots` or `state`, sources to targets."""

    what: str
    pairs: tuple[tuple[int, int], ...]


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The end of the group."""


class Rows(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Numbers [N, E] through the group's codec, or as they are."""

    what: str
    shape: tuple[int, int]
    plain: bool


WIRE: Final = Wire("pentad-ranks", 3, Hello | Setup | Weight | Peers | Ready | Step | Copy | Stop | Rows)


def step_of(batch: RaggedBatch, pieces: int) -> tuple[Step, list[Buffer]]:
    """A batch as a message and its buffers. Raises Incompatible for what ranks don't compute."""
    for name in ("sources", "adapters", "head_slots"):
        if getattr(batch, name) is not None:
            raise Incompatible(f"ranks compute no {name}", hint="leave --parallel out", param="parallel")
    found: list[tuple[str, str, tuple[int, ...]]] = []
    buffers: list[Buffer] = []
    for name in _FIELDS:
        if (value := getattr(batch, name)) is not None:
            array = np.ascontiguousarray(value)
            found.append((name, array.dtype.str, array.shape))
            buffers.append(array.tobytes())
    return Step(fields=tuple(found), pieces=pieces), buffers


def batch_of(received: Received) -> RaggedBatch:
    """The batch of a Step. Raises BackendFailed for fields that no batch has."""
    step: Step = received.message
    values: dict[str, Any] = {}
    try:
        for (name, dtype, shape), buffer in zip(step.fields, received.buffers, strict=True):
            if name not in _FIELDS or dtype not in _DTYPES or min(shape, default=0) < 0:
                raise BackendFailed(f"a batch has no {name!r} of {dtype!r} {shape}")
            values[name] = np.frombuffer(buffer, dtype).reshape(shape).copy()
        return RaggedBatch(**values)
    except (ValueError, TypeError, OverflowError) as error:
        raise BackendFailed(f"what came is no batch: {error}") from None
