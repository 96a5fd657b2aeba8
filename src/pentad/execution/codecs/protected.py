"""Important numbers over reliable links: packets that a link may lose, protected by what they carry."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pentad.errors import BackendFailed
from pentad.execution.codecs.base import Buffer, Floats, array_of
from pentad.execution.codecs.blocks import coded, half_words, of_half_words, padded, scales_of
from pentad.ranges import in_range
from pentad.types import Exactness

_MOST = 127
_NUMBERS = 64
"""Of a packet, in eight bits, with a scale in common."""
Packets = npt.NDArray[np.uint8]
Lost = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """Eight bits a number in small packets; the features that range furthest are sent several times.

    A number whose packet was lost is zero at the other end. With `equal` protection all packets are alike,
    and the same bytes go into a parity packet for every few of them, which makes up for one that was lost.

    Exactness: lossy where packets are lost, else no number is further off than half a step, 1/254 of the
    largest of its packet. Cost: 8.25 bits a number, and as many for each further copy of the important ones.
    Source: unequal error protection of activations as the survey asks for it (VII-D1); the importance of a
    feature is its range in the message, which weights of later layers would tell better.
    """

    name: ClassVar[str] = "protected"
    exactness: ClassVar[Exactness] = "bounded"

    protection: Literal["unequal", "equal"] = "unequal"
    """Which packets are protected: those of important features, or all alike."""
    important_fraction: float = 1 / 16
    """Of the features, how many are important."""
    copies: int = 3
    """Of an important packet."""
    loss: float = 0.0
    """Of the packets of a simulated link, how many it loses, drawn from what they hold; 0 for real links,
    which lose none."""

    def __post_init__(self) -> None:
        in_range("important_fraction", self.important_fraction, above=0, most=0.5)
        in_range("copies", self.copies, least=2, most=8)
        in_range("loss", self.loss, least=0, most=0.5)
        if self.protection not in ("unequal", "equal"):
            raise ValueError(f"protection is {self.protection!r}, must be unequal or equal")

    @property
    def group(self) -> int:
        """Packets for each parity packet, so that both protections take the same bytes."""
        return max(1, round(1 / ((self.copies - 1) * self.important_fraction)))

    def encode(self, rows: Floats) -> list[Buffer]:
        """See Codec."""
        important = self._important(rows)
        rest = _packets(np.delete(rows, important, axis=1))
        if self.protection == "equal":
            return [important.astype("<u2").tobytes(), rest.tobytes(), _parity(rest, self.group).tobytes()]
        first = _packets(rows[:, important])
        return [important.astype("<u2").tobytes(), rest.tobytes(), *[first.tobytes()] * self.copies]

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """See Codec."""
        important = array_of(buffers[0], "<u2", (self._count(shape[1]),)).astype(np.int64)
        if len(important) and important.max() >= shape[1]:
            raise BackendFailed(f"feature {important.max()} came for rows of {shape[1]}")
        found = np.zeros(shape, np.float32)
        others = np.setdiff1d(np.arange(shape[1]), important)
        rest = _array(buffers[1], shape[0] * len(others))
        lost = self._lost(rest)
        if self.protection == "equal":
            parity = array_of(buffers[2], "u1", (-(-len(rest) // self.group), rest.shape[1])).astype(np.uint8)
            rest, lost = _mended(rest, lost, parity, self._lost(parity), self.group)
        else:
            copies = [_array(buffer, shape[0] * len(important)) for buffer in buffers[2:]]
            if len(copies) != self.copies:
                raise BackendFailed(f"{len(copies)} copies came where {self.copies} are sent")
            # Copies go different ways: each is lost by itself.
            gone = np.logical_and.reduce([self._lost(copy, place) for place, copy in enumerate(copies)])
            found[:, important] = _numbers(copies[0], gone, (shape[0], len(important)))
        found[:, others] = _numbers(rest, lost, (shape[0], len(others)))
        return found

    def error_bound(self, rows: Floats) -> Floats:
        """See Codec."""
        if self.loss:
            return np.full_like(rows, np.inf)
        important = self._important(rows)
        others = np.setdiff1d(np.arange(rows.shape[1]), important)
        bound = np.zeros_like(rows)
        for columns in (important, others):
            part = rows[:, columns].reshape(1, -1)
            steps: Floats = scales_of(padded(part, _NUMBERS), _MOST) * np.float32(0.5)
            bound[:, columns] = np.repeat(steps, _NUMBERS, axis=1)[:, : part.size].reshape(
                len(rows), len(columns)
            )
        return bound

    def _count(self, width: int) -> int:
        return 0 if self.protection == "equal" else max(1, round(self.important_fraction * width))

    def _important(self, rows: Floats) -> npt.NDArray[np.int64]:
        """The features with the widest ranges, in order."""
        count = self._count(rows.shape[1])
        ranges = np.abs(rows).max(0, initial=0)
        return np.sort(np.argsort(-ranges, kind="stable")[:count])

    def _lost(self, packets: Packets, way: int = 0) -> Lost:
        if not self.loss:
            return np.zeros(len(packets), np.bool_)
        seed = hashlib.blake2b(packets.tobytes(), digest_size=8, person=bytes([way])).digest()
        return np.random.default_rng(int.from_bytes(seed, "little")).random(len(packets)) < self.loss


def _packets(rows: Floats) -> Packets:
    """Numbers in order as packets [P, 2 + 64]: a scale and codes."""
    blocks = padded(rows.reshape(1, -1), _NUMBERS)
    scales = scales_of(blocks, _MOST)
    codes = coded(blocks, scales, _MOST)[0].view(np.uint8)
    words = np.frombuffer(half_words(scales), np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(np.concatenate([words, codes], axis=1))


def _array(buffer: Buffer, numbers: int) -> Packets:
    return array_of(buffer, "u1", (-(-numbers // _NUMBERS), 2 + _NUMBERS)).astype(np.uint8)


def _numbers(packets: Packets, lost: Lost, shape: tuple[int, int]) -> Floats:
    """What packets hold; zeros for those that were lost."""
    scales = of_half_words(np.ascontiguousarray(packets[:, :2]).view("<u2")[:, 0])
    codes = packets[:, 2:].view(np.int8).astype(np.float32)
    found = codes * np.where(lost, 0, scales)[:, None]
    return found.reshape(-1)[: shape[0] * shape[1]].reshape(shape).astype(np.float32)


def _parity(packets: Packets, group: int) -> Packets:
    """[ceil(P / group), ...] the exclusive or of each group."""
    missing = -len(packets) % group
    whole = np.pad(packets, ((0, missing), (0, 0))).reshape(-1, group, packets.shape[1])
    found: Packets = np.bitwise_xor.reduce(whole, axis=1)
    return found


def _mended(
    packets: Packets, lost: Lost, parity: Packets, parity_lost: Lost, group: int
) -> tuple[Packets, Lost]:
    """Packets with those made again that alone are missing in their group."""
    packets, lost = packets.copy(), lost.copy()
    for place in range(len(parity)):
        part = slice(place * group, (place + 1) * group)
        missing = np.flatnonzero(lost[part])
        if len(missing) == 1 and not parity_lost[place]:
            one = place * group + int(missing[0])
            packets[one] = 0
            packets[one] = np.bitwise_xor.reduce(packets[part], axis=0) ^ parity[place]
            lost[one] = False
    return packets, lost
