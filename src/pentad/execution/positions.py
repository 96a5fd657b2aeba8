"""Where tokens stand, as data: how positions enter a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    `llama3`: by wavelength (Llama 3.1 release). `linear`: all alike (Chen et al. 2023). `yarn`: between
    two numbers of turns, scores scaled by `magnitude` (Peng et al. 2023). `longrope`: by divisors of each
    pair, which stand in `Rope.frequency_factors`, and `magnitude` (Ding et al. 2024).
    """

    kind: Literal["llama3", "linear", "yarn", "longrope"] = "llama3"
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    fast_turns: float = 32.0
    slow_turns: float = 1.0
    magnitude: float = 1.0
    whole_pairs: bool = True
    """Of `yarn`: whether the bounds between kept and stretched pairs are rounded outwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DualChunks:
    """Rotary positions that stay in the trained range: a text is cut into chunks of `length` tokens.

    A key is turned by its place in its chunk. A query is turned by its place for keys of its own chunk, by
    min(place + length, reach - 1) for those of the chunk before, and by reach - 1 for all earlier ones.

    Source: An et al. 2024, section 3, where `length` is s and `reach`, the trained context, c.
    """

    length: int
    reach: int

    def __post_init__(self) -> None:
        if not 0 < self.length < self.reach:
            raise ValueError(f"chunks of {self.length} tokens do not fit in a reach of {self.reach}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions (Su et al. 2021)."""

    base: float = 10_000.0
    dim: int
    """Rotated part of each head; equals the head size in most families."""
    pairing: Literal["half", "interleaved"] = "half"
    """Which two elements turn together: (i, i + dim/2), or (2i, 2i + 1) as in Llama GGUF files."""
    scaling: RopeScaling | None = None
    frequency_factors: tuple[float, ...] | None = None
    """Per-pair divisors that a file ships (`rope_freqs`); takes the place of `scaling`."""
    dual: DualChunks | None = None
    """How positions are remapped to stay in the trained range; None: they are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alibi:
    """A slope per head times the distance, taken from the score (Press et al. 2021); nothing is stored."""

    scale: float = 1.0
    """Factor of the slopes: 1 / sqrt(head size) where they are added in front of that scaling (Falcon)."""
    most: float = 8.0
    """Binary logarithm of one over the smallest slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedDistances:
    """Scores (q + u) k + (q + v) W r of a matrix W and vectors u, v that each layer has, where r are the
    sinusoids of a query's distance from a slot (Transformer-XL, Dai et al. 2019, section 3.3; Gopher)."""

    base: float = 10_000.0
    """Of the sinusoids' wavelengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Queries at position p are multiplied by 1 + weight * log(1 + floor((p + offset) / period)), or without
    steps by 1 + weight * log(max(1, (p + offset) / period)).

    Llama 4 counts from 1, Ministral 3 from 0, both in steps; Qwen 2.5 1M has none. Source: Nakanishi 2025;
    without steps Peng et al. 2023, section 3.4, for a stretch that is as long as the text.
    """

    weight: float
    period: int
    offset: int = 0
    steps: bool = True

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ValueError(f"queries cannot grow every {self.period} tokens")


@dataclass(frozen=True, slots=True)
class Sight:
    """How far back a token sees.

    |0 ......... first | first ........ position |
        not seen         seen: `window` tokens, or those of the token's own chunk
    """

    window: int | None = None
    """So many tokens, the own one included; None: all."""
    chunk: int | None = None
    """The text is cut into chunks of so many tokens, none of which sees another; None: it is not."""

    def __post_init__(self) -> None:
        if self.window is not None and self.chunk is not None:
            raise ValueError("a layer has a window or chunks, not both")
        for name, tokens in (("window", self.window), ("chunk", self.chunk)):
            if tokens is not None and tokens < 1:
                raise ValueError(f"{name} is {tokens}, must be at least 1")

    @property
    def limited(self) -> bool:
        """Whether anything is not seen."""
        return self.window is not None or self.chunk is not None

    def first(self, positions: Indices) -> Indices:
        """The first position that is seen from each of these."""
        found: Indices = np.zeros_like(positions)
        if self.window is not None:
            found = np.maximum(positions + 1 - self.window, 0)
        elif self.chunk is not None:
            found = positions // self.chunk * self.chunk
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A table of position embeddings added to the token embeddings, once, in front of the layers."""

    max_positions: int
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeBuckets:
    """A learned number per head and bucket of distances, added to the score; shared by a stack (T5)."""

    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = True
    """Whether tokens ahead have buckets of their own, as in encoders."""

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4:
            raise ValueError(
                f"relative positions in {self.buckets} buckets cannot be, only in multiples of 4"
            )
        if self.max_distance <= self.buckets // 2:
            raise ValueError(f"distances up to {self.max_distance} need no {self.buckets} buckets")


Rotary: TypeAlias = Rope | Alibi | ProjectedDistances | None
"""What an attention layer does about positions by itself."""


def alibi_slopes(heads: int, record: Alibi) -> tuple[float, ...]:
    """[H] slopes: a geometric series, and every other one of the next where H is no power of two.

    Source: Press et al. 2021, section 3, and the authors' code for other numbers of heads.
    """
    power = 1 << (heads.bit_length() - 1)

    def series(count: int) -> tuple[float, ...]:
        return tuple(record.scale * 2.0 ** (-record.most * (i + 1) / count) for i in range(count))

    return series(power) + series(2 * power)[0::2][: heads - power]
