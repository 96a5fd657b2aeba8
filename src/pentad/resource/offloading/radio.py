"""Radio links by published formulas: path loss, Shannon's rate, and two users who share a band.

Rates are of one transmitter at an instant; who moves asks again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pentad.ranges import in_range

NOISE_W_PER_HZ = 10 ** ((-174 - 30) / 10)
"""Thermal noise at room temperature, -174 dBm/Hz."""
_LEAST_M = 10.0
"""Nearer than this the path loss stays: the formula is none for a transmitter's own mast."""


def path_gain(distance_m: float) -> float:
    """Share of the power that arrives over a distance outdoors, above 0 and below 1.

    Source: 128.1 + 37.6 log10(distance in km) dB, the macro cell model of 3GPP TR 36.942, section 4.5.2.
    """
    in_range("distance_m", distance_m, least=0)
    loss_db = 128.1 + 37.6 * math.log10(max(distance_m, _LEAST_M) / 1000)
    return float(10 ** (-loss_db / 10))


def rate_bits_per_s(
    bandwidth_hz: float, power_w: float, gain: float, *, interference_w: float = 0.0
) -> float:
    """The most that a channel carries, by Shannon; 0 without a band.

    Args:
        power_w: sent in this band.
        gain: share of the power that arrives.
        interference_w: received in this band beside the noise.
    """
    if bandwidth_hz <= 0:
        return 0.0
    noise_w = NOISE_W_PER_HZ * bandwidth_hz + interference_w
    return bandwidth_hz * math.log2(1 + power_w * gain / noise_w)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBand:
    """A band in which one transmitter reaches two receivers: one wants meaning, the other bits."""

    bandwidth_hz: float
    power_w: float
    """Of the transmitter, for both together."""
    meaning_gain: float
    """To the receiver that is content with the meaning of a text."""
    bits_gain: float
    """To the one that needs every bit."""

    def __post_init__(self) -> None:
        for name in ("bandwidth_hz", "power_w", "meaning_gain", "bits_gain"):
            in_range(name, getattr(self, name), above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a band and the power in it are split between the two streams. Shares add up to 1 at most."""

    shared: float
    """Share of the band in which both streams lie on top of each other; the rest carries bits alone."""
    meaning_power: float
    """Share of the power for the stream of meaning, in the shared part."""
    bits_power: float
    """Share of the power for the stream of bits in the shared part."""

    @property
    def alone_power(self) -> float:
        """Share of the power for bits in the part that they have for themselves."""
        return max(0.0, 1 - self.meaning_power - self.bits_power)


def bits_rate(band: SharedBand, division: Division) -> float:
    """Bits per second to the receiver of bits.

    In the shared part the stream of meaning is noise to it, and the other receiver must decode the bits
    as well before it takes them away (successive interference cancellation), so the worse of both counts.

    Source: Mu et al., "Heterogeneous semantic and bit communications: A semi-NOMA scheme", section III.
    """
    alone_hz = (1 - division.shared) * band.bandwidth_hz
    shared_hz = division.shared * band.bandwidth_hz
    rate = rate_bits_per_s(alone_hz, division.alone_power * band.power_w, band.bits_gain)
    if division.bits_power <= 0:
        return rate
    return rate + min(
        rate_bits_per_s(
            shared_hz,
            division.bits_power * band.power_w,
            gain,
            interference_w=division.meaning_power * band.power_w * gain,
        )
        for gain in (band.bits_gain, band.meaning_gain)
    )


def meaning_snr_db(band: SharedBand, division: Division) -> float:
    """Signal to noise at the receiver of meaning once the bits have been taken away; minus infinity if 0."""
    signal = division.meaning_power * band.power_w * band.meaning_gain
    noise_w = NOISE_W_PER_HZ * division.shared * band.bandwidth_hz
    return 10 * math.log10(signal / noise_w) if signal > 0 and noise_w > 0 else -math.inf
