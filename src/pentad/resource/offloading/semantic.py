"""Semantic streams: how alike a text is that arrives, by the channel, and the best division of a shared band.

A semantic code sends a word as a few symbols whose decoding degrades slowly. How alike what arrives is to
what was sent rises with the signal to noise as an S between two levels, which a generalized logistic function
describes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.offloading.radio import NOISE_W_PER_HZ, Division, SharedBand

Access = Literal["semi-noma", "noma", "oma"]
Floats = npt.NDArray[np.float64]
_POINTS = 17
"""Of each axis of the grid."""
_ROUNDS = 5
"""How often the grid is narrowed down around the best point."""
_FIT_ROUNDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityCurve:
    """Similarity over signal to noise: low + (high - low) / (1 + exp(-(slope * dB + shift))).

    The defaults are a fit to the word code of `simulated_similarity` with 4 symbols a word.
    """

    low: float = 0.0222
    high: float = 1.0256
    slope: float = 0.4215
    shift: float = -1.1577
    symbols_per_word: int = 4
    least: float = 0.0
    """Below this nothing counts as received."""

    def __post_init__(self) -> None:
        in_range("symbols_per_word", self.symbols_per_word, least=1)
        in_range("least", self.least, least=0, most=1)

    def at(self, snr_db: Floats | float) -> Floats:
        """Similarity, 0 to 1, of each signal to noise."""
        power = np.clip(-(self.slope * np.asarray(snr_db, dtype=np.float64) + self.shift), -60, 60)
        return np.clip(self.low + (self.high - self.low) / (1 + np.exp(power)), 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A division and what it gives both receivers."""

    division: Division
    words_per_s: float
    """Of meaning, each counted by its similarity."""
    bits_per_s: float


def fit_similarity(
    snr_db: Sequence[float], similarity: Sequence[float], symbols_per_word: int
) -> SimilarityCurve:
    """The curve nearest to measured points by least squares (Levenberg and Marquardt's steps).

    Raises InvalidRequest for fewer points than the curve has numbers.

    Source: the data regression of Mu et al. 2023, section II-B.
    """
    x, y = np.asarray(snr_db, np.float64), np.asarray(similarity, np.float64)
    if len(x) < 4 or len(x) != len(y):
        raise InvalidRequest(
            f"a curve of 4 numbers cannot be fitted to {len(x)} points", hint="measure at least 4 points"
        )
    middle = x[np.argmin(np.abs(y - (y.min() + y.max()) / 2))]
    numbers, damping = np.array([y.min(), y.max(), 0.5, -0.5 * middle]), 1e-2

    def off(at: Floats) -> tuple[Floats, Floats]:
        share = 1 / (1 + np.exp(np.clip(-(at[2] * x + at[3]), -60, 60)))
        bend = (at[1] - at[0]) * share * (1 - share)
        return at[0] + (at[1] - at[0]) * share - y, np.stack([1 - share, share, bend * x, bend], axis=1)

    error, slopes = off(numbers)
    for _ in range(_FIT_ROUNDS):
        normal = slopes.T @ slopes
        step = np.linalg.solve(
            normal + damping * (np.diag(np.diag(normal)) + 1e-9 * np.eye(4)), slopes.T @ error
        )
        tried, tried_slopes = off(numbers - step)
        if tried @ tried < error @ error:
            numbers, error, slopes, damping = numbers - step, tried, tried_slopes, damping / 3
        else:
            damping *= 4
    low, high, slope, shift = (float(number) for number in numbers)
    return SimilarityCurve(low=low, high=high, slope=slope, shift=shift, symbols_per_word=symbols_per_word)


def simulated_similarity(
    snr_db: float, *, symbols_per_word: int = 4, words: int = 4000, vocabulary: int = 256, seed: int = 0
) -> float:
    """Mean similarity of words that a channel with Gaussian noise has carried, -1 to 1.

    Each word is a random vector of so many complex symbols of unit power; what arrives is decoded as the word
    nearest to it. Similarity is the cosine between the meanings (other random vectors) of both.
    """
    dice = np.random.default_rng((seed, round(1000 * (snr_db + 500))))
    code = np.random.default_rng((seed, 1)).normal(size=(vocabulary, 2 * symbols_per_word))
    code /= np.linalg.norm(code, axis=1, keepdims=True) / math.sqrt(symbols_per_word)
    meaning = np.random.default_rng((seed, 2)).normal(size=(vocabulary, 32))
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    sent = dice.integers(0, vocabulary, words)
    noise = dice.normal(size=(words, 2 * symbols_per_word)) * math.sqrt(0.5 / 10 ** (snr_db / 10))
    got = np.argmax((code[sent] + noise) @ code.T, axis=1)
    return float(np.mean(np.sum(meaning[sent] * meaning[got], axis=1)))


def best_division(
    band: SharedBand, bits_per_s: float, *, access: Access = "semi-noma", curve: SimilarityCurve | None = None
) -> Shared:
    """The division with the fastest stream of meaning that leaves the other receiver so many bits.

    Where the band cannot carry these, what comes back has 0 words. `oma` puts no bits under the meaning,
    `noma` leaves none alone; `semi-noma` may do both, so it is never worse than either.

    Raises InvalidRequest for a rate below 0.
    """
    in_range("bits_per_s", bits_per_s, least=0)
    curve = curve or SimilarityCurve()
    searched: tuple[Access, ...] = ("oma", "noma", "semi-noma") if access == "semi-noma" else (access,)
    found = [_search(band, bits_per_s, each, curve) for each in searched]
    return max(found, key=lambda shared: shared.words_per_s)


def _search(band: SharedBand, bits_per_s: float, access: Access, curve: SimilarityCurve) -> Shared:
    """Over shared band, power of meaning, and how much of the other power lies in the shared part."""
    spans = [
        (1.0, 1.0) if access == "noma" else (1e-3, 1.0),
        (0.0, 1.0),
        {"oma": (0.0, 0.0), "noma": (1.0, 1.0), "semi-noma": (0.0, 1.0)}[access],
    ]
    limits = list(spans)
    best = Shared(
        division=Division(shared=spans[0][1], meaning_power=0, bits_power=0), words_per_s=0, bits_per_s=0
    )
    for _ in range(_ROUNDS):
        axes = [np.linspace(low, high, _POINTS if high > low else 1) for low, high in spans]
        shared, meaning, under = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        words, bits = _rates(band, shared, meaning, under * (1 - meaning), curve)
        words = np.where(bits >= bits_per_s * (1 - 1e-9), words, -1.0)
        at = int(np.argmax(words))
        if words[at] > best.words_per_s:
            division = Division(
                shared=float(shared[at]),
                meaning_power=float(meaning[at]),
                bits_power=float(under[at] * (1 - meaning[at])),
            )
            best = Shared(division=division, words_per_s=float(words[at]), bits_per_s=float(bits[at]))
        point = (shared[at], meaning[at], under[at])
        spans = [
            (max(least, float(here) - (high - low) / 4), min(most, float(here) + (high - low) / 4))
            for here, (low, high), (least, most) in zip(point, spans, limits, strict=True)
        ]
    return best


def _rates(
    band: SharedBand, shared: Floats, meaning: Floats, bits: Floats, curve: SimilarityCurve
) -> tuple[Floats, Floats]:
    """Words and bits per second of many divisions, as `radio.bits_rate` and `meaning_snr_db` say of one."""
    alone_hz, shared_hz = (1 - shared) * band.bandwidth_hz, shared * band.bandwidth_hz
    alone_w = np.maximum(0.0, 1 - meaning - bits) * band.power_w
    noise_w = NOISE_W_PER_HZ * shared_hz
    some_hz = np.maximum(alone_hz, 1e-9)
    rate = alone_hz * np.log2(1 + alone_w * band.bits_gain / (NOISE_W_PER_HZ * some_hz))
    under = [
        np.log2(1 + bits * band.power_w * gain / (noise_w + meaning * band.power_w * gain))
        for gain in (band.bits_gain, band.meaning_gain)
    ]
    with np.errstate(divide="ignore"):
        snr_db = 10 * np.log10(meaning * band.power_w * band.meaning_gain / noise_w)
    similarity = curve.at(np.maximum(snr_db, -200.0))
    similarity = np.where((meaning > 0) & (similarity >= curve.least), similarity, 0.0)
    return shared_hz / curve.symbols_per_word * similarity, rate + shared_hz * np.minimum(*under)


def region(
    band: SharedBand, access: Access, points: int, curve: SimilarityCurve | None = None
) -> tuple[Shared, ...]:
    """The border of what both receivers can have, from no bits to all that the band carries of them."""
    most = bits_alone(band)
    return tuple(
        best_division(band, most * at / (points - 1), access=access, curve=curve)
        for at in itertools.chain(range(points - 1), (points - 1 - 1e-6,))
    )


def bits_alone(band: SharedBand) -> float:
    """Bits per second without any meaning."""
    noise_w = NOISE_W_PER_HZ * band.bandwidth_hz
    return band.bandwidth_hz * math.log2(1 + band.power_w * band.bits_gain / noise_w)
