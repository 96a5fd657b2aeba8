"""Mixers that hold a state per sequence in place of a cache, as data.

The state lies in numbers that do not grow with the text: the last inputs of a short convolution, and in the
linear-recurrent ones a matrix per head.

Axis letters: E model width, H value heads, G heads of keys and queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pentad.execution.shapes import Shapes, at_least_one


class _Slotless:
    """What a mixer without a cache says of it."""

    __slots__ = ()

    @property
    def window(self) -> None:
        return None

    @property
    def rotation(self) -> None:
        return None

    @property
    def cache_row(self) -> None:
        return None

    @property
    def kv_elements(self) -> int:
        return 0

    def pair_products(self) -> int:
        """None: there are no slots."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(_Slotless):
    """A linear-recurrent mixer: a state per head in place of a cache.

    `mamba2`: state space duality (Dao and Gu 2024), whose C, B and x stand here as queries, keys and values.
    `gated_delta`: the gated delta rule (Yang et al. 2024, as in Qwen3-Next).
    """

    rule: Literal["mamba2", "gated_delta"]
    heads: int
    """Value heads."""
    value_dim: int
    """Of a head."""
    groups: int
    """Heads of keys and queries; each serves equally many value heads, which follow one another."""
    key_dim: int
    """Of a group: the size of the state beside `value_dim`."""
    conv: int = 4
    """Tokens that the convolution in front sees."""
    conv_bias: bool = True
    norm_groups: int = 1
    """Of mamba2: what is given is normed in so many equal parts."""
    norm_eps: float = 1e-5
    """Of that norm; with `gated_delta` it is one of each head."""
    step_limits: tuple[float, float] | None = None
    """Of mamba2: between what steps are cut; None: nothing is."""

    def __post_init__(self) -> None:
        for name in ("heads", "value_dim", "groups", "key_dim", "conv", "norm_groups"):
            at_least_one(name, getattr(self, name))
        if self.heads % self.groups:
            raise ValueError(f"{self.heads} value heads do not share {self.groups} key heads evenly")
        if self.inner % self.norm_groups:
            raise ValueError(f"{self.inner} numbers are not normed in {self.norm_groups} equal parts")

    @property
    def kind(self) -> str:
        return "recurrent"

    @property
    def inner(self) -> int:
        """Numbers of all values."""
        return self.heads * self.value_dim

    @property
    def keys(self) -> int:
        """Numbers of all keys, and of all queries."""
        return self.groups * self.key_dim

    @property
    def convolved(self) -> int:
        """Numbers that the convolution takes: queries, keys, values; of mamba2 values, keys, queries."""
        return self.inner + 2 * self.keys

    @property
    def state_elements(self) -> int:
        return self.heads * self.value_dim * self.key_dim + (self.conv - 1) * self.convolved

    def shapes(self, width: int) -> Shapes:
        found: Shapes = {"z": (self.inner, width), "q": (self.keys, width), "k": (self.keys, width)}
        found |= {"v": (self.inner, width), "conv": (self.convolved, self.conv)}
        if self.conv_bias:
            found["conv.bias"] = (self.convolved,)
        found |= {"step": (self.heads, width), "decay": (self.heads,)}
        if self.rule == "mamba2":
            found |= {"skip": (self.heads,), "inner_norm": (self.inner,)}
        else:
            found |= {"rate": (self.heads, width), "inner_norm": (self.value_dim,)}
        return found | {"step.bias": (self.heads,), "o": (width, self.inner)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolution(_Slotless):
    """A convolution over the last few tokens between two gates (LFM2): c * conv(b * x)."""

    channels: int
    conv: int = 3
    """Tokens that it sees, the own one included."""
    bias: bool = False

    def __post_init__(self) -> None:
        at_least_one("channels", self.channels)
        at_least_one("conv", self.conv)

    @property
    def kind(self) -> str:
        return "convolution"

    @property
    def state_elements(self) -> int:
        return (self.conv - 1) * self.channels

    def shapes(self, width: int) -> Shapes:
        """`in` gives b, c and x."""
        found: Shapes = {"in": (3 * self.channels, width), "conv": (self.channels, self.conv)}
        found |= {"o": (width, self.channels)}
        return found | ({f"{name}.bias": shape[:1] for name, shape in found.items()} if self.bias else {})
