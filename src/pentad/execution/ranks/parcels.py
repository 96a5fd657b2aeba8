"""Tensors on their way from rank 0 to the ranks that compute with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np

from pentad.execution.quant import stored_bytes
from pentad.execution.ranks.messages import Weight
from pentad.execution.ranks.shards import ShardSource
from pentad.execution.transport.base import BadFrame, Link, Received
from pentad.execution.weights import StoredTensor, TensorFormat

_PART_BYTES: Final = 16 << 20
"""Of a tensor in one frame."""


@dataclass(slots=True)
class Parcel:
    """The tensors that came, whole ones and those on their way."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    extras: set[str] = field(default_factory=set)
    _coming: bytearray = field(default_factory=bytearray)

    def take(self, received: Received) -> None:
        """A part of a tensor. Raises BadFrame for more or less than its shape says."""
        message: Weight = received.message
        self._coming += received.buffers[0]
        size = stored_bytes(cast("TensorFormat", message.format), message.shape)
        if len(self._coming) > size or (message.last and len(self._coming) != size):
            raise BadFrame(f"tensor {message.name!r} has {size} bytes, {len(self._coming)} came")
        if not message.last:
            return
        self.tensors[message.name] = StoredTensor(
            name=message.name,
            format=cast("TensorFormat", message.format),
            shape=message.shape,
            data=np.frombuffer(bytes(self._coming), np.uint8),
        )
        self._coming.clear()
        if message.extra:
            self.extras.add(message.name)


def send_weights(link: Link, source: ShardSource) -> int:
    """A rank's tensors, in parts; how many bytes they have."""
    extras = frozenset(source.extras())
    sent = 0
    for name in [*source.names(), *sorted(extras)]:
        stored = source.tensor(name).held()
        data = memoryview(stored.data.reshape(-1))  # type: ignore[arg-type]
        starts = range(0, max(len(data), 1), _PART_BYTES)
        for start in starts:
            part = Weight(
                name=name,
                format=stored.format,
                shape=stored.shape,
                last=start == starts[-1],
                extra=name in extras,
            )
            link.send(part, data[start : start + _PART_BYTES])
        sent += len(data)
    return sent
