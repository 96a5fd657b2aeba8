"""Shares: whom models, tools and devices belong to, what they charge, and bills split without remainder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

from pentad.agent.codec import Malformed, decode
from pentad.errors import InvalidRequest
from pentad.ranges import in_range

Kind = Literal["tokens", "tool_calls", "device_seconds"]
PER_UNIT: Final = 1_000_000
"""Smallest parts of one unit of money; every amount is a whole number of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What one thing charges, and who has which part of that."""

    per: float
    """Money per token, per call or per second."""
    shares: Mapping[str, int]
    """Contributor to whole number of parts."""

    def __post_init__(self) -> None:
        in_range("per", self.per, least=0, most=1e6)
        if not self.shares:
            raise InvalidRequest("shares names no contributor", hint="name at least one", param="shares")
        for name, parts in self.shares.items():
            in_range(f"shares.{name}", parts, least=0)
        if not sum(self.shares.values()):
            raise InvalidRequest("all shares are 0", hint="give somebody a part", param="shares")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePlan:
    """The declared rates: of models by tokens, of tools by calls, of a model's devices by seconds."""

    models: Mapping[str, Rate] = field(default_factory=dict)
    tools: Mapping[str, Rate] = field(default_factory=dict)
    devices: Mapping[str, Rate] = field(default_factory=dict)
    """By the model that they compute."""

    @classmethod
    def of(cls, value: object) -> SharePlan:
        """The plan that a file's value describes. Raises InvalidRequest with the place of a mistake."""
        try:
            return decode(cls, value)
        except Malformed as error:
            raise InvalidRequest(
                f"shares: {error}", hint="see the section on shares in docs/agent.md", param="shares"
            ) from None

    def rate(self, kind: Kind, name: str) -> Rate | None:
        """What is declared of a thing; None where it charges nothing."""
        tables = {"tokens": self.models, "tool_calls": self.tools, "device_seconds": self.devices}
        return tables[kind].get(name)


def amount_of(rate: Rate, quantity: float) -> int:
    """What so much of it costs, in the smallest parts, rounded half to even.

    Decimal, so that the same record gives the same amount on every machine.
    """
    exact = Decimal(str(rate.per)) * Decimal(str(quantity)) * PER_UNIT
    return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))


def split(amount: int, shares: Mapping[str, int]) -> dict[str, int]:
    """The amount by shares, in whole parts that sum to it exactly.

    What is left of rounding down goes to the largest remainders, ties to the first name (Hamilton's method).
    """
    whole = sum(shares.values())
    parts = {name: amount * share // whole for name, share in shares.items()}
    order = sorted(shares, key=lambda name: (-(amount * shares[name] % whole), name))
    for name in order[: amount - sum(parts.values())]:
        parts[name] += 1
    return parts
