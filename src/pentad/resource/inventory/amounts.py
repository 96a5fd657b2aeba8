"""Amounts: compute, storage and bandwidth together."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.ranges import in_range

_SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a node has, or what a piece of work needs of it."""

    compute: float = 0.0
    """Slots, cores or devices: one unit for the whole inventory."""
    storage_bytes: float = 0.0
    bandwidth_bytes_per_s: float = 0.0

    def __post_init__(self) -> None:
        in_range("compute", self.compute, least=-_SLACK)
        in_range("storage_bytes", self.storage_bytes, least=-_SLACK)
        in_range("bandwidth_bytes_per_s", self.bandwidth_bytes_per_s, least=-_SLACK)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            compute=self.compute + other.compute,
            storage_bytes=self.storage_bytes + other.storage_bytes,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s + other.bandwidth_bytes_per_s,
        )

    def fits(self, room: Amounts, taken: Amounts) -> bool:
        """Whether it fits beside what is taken of a room, in all three."""
        return (
            self.compute + taken.compute <= room.compute + _SLACK
            and self.storage_bytes + taken.storage_bytes <= room.storage_bytes + _SLACK
            and self.bandwidth_bytes_per_s + taken.bandwidth_bytes_per_s
            <= room.bandwidth_bytes_per_s + _SLACK
        )

    def share_of(self, room: Amounts) -> float:
        """The largest of its three shares of a room."""
        return max(
            self.compute / room.compute if room.compute else 0.0,
            self.storage_bytes / room.storage_bytes if room.storage_bytes else 0.0,
            self.bandwidth_bytes_per_s / room.bandwidth_bytes_per_s if room.bandwidth_bytes_per_s else 0.0,
        )
