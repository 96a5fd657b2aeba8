"""Ways of using a machine as sites of their own: parts of it, slower clocks, models split between two.

A policy that picks among them decides how much of what is used, not only where, and needs no other interface:
half of a machine is a site at half the speed, of which there is more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pentad.ranges import in_range
from pentad.resource.offloading.base import Site


def clocked(site: Site, frequency: float) -> Site:
    """The site with its clock at this share of the highest, above 0 to 1.

    Times grow as 1 / frequency, the energy of the same work falls as its square.

    Source: dynamic power as the third power of the clock (Burd and Brodersen, 1996), voltage in proportion.
    """
    in_range("frequency", frequency, above=0, most=1)
    return replace(
        site,
        name=f"{site.name}@{frequency:g}",
        machine=site.machine or site.name,
        share=frequency,
        prompt_token_s=site.prompt_token_s / frequency,
        token_s=site.token_s / frequency,
        energy_per_prompt_token_j=site.energy_per_prompt_token_j * frequency**2,
        energy_per_token_j=site.energy_per_token_j * frequency**2,
    )


def part(site: Site, share: float, *, ready_s: float = 0.0) -> Site:
    """This share of the site, above 0 to 1: as much slower, and as much cheaper per second.

    Args:
        ready_s: until so much of it is free.
    """
    in_range("share", share, above=0, most=1)
    return replace(
        site,
        name=f"{site.name}/{share:g}",
        machine=site.machine or site.name,
        share=share,
        ready_s=site.ready_s + ready_s,
        prompt_token_s=site.prompt_token_s / share,
        token_s=site.token_s / share,
        price_per_s=site.price_per_s * share,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a model may be cut in two: behind this share of its layers."""

    layers: float
    """Share of the layers in front of it, above 0 to 1."""
    prompt_bytes: float
    """What crosses it for a whole prompt."""
    token_bytes: float
    """What crosses it for each generated token."""

    def __post_init__(self) -> None:
        in_range("layers", self.layers, above=0, most=1)
        in_range("prompt_bytes", self.prompt_bytes, least=0)
        in_range("token_bytes", self.token_bytes, least=0)


def splits(here: Site, there: Site, cuts: Iterable[Cut]) -> tuple[Site, ...]:
    """The first layers here, the others there, one site per cut.

    Each token passes both parts, the link and the way back. The first part waits for this device's queue
    and the second for the other's, whichever is longer. What is paid per second there is paid for its part.

    Args:
        here: the device at which requests arise.
        there: reached over a link whose rate is known.
    """
    return tuple(_split(here, there, cut) for cut in cuts)


def _split(here: Site, there: Site, cut: Cut) -> Site:
    first, rest = cut.layers, 1 - cut.layers
    assert there.bytes_per_s, "a split needs a link"
    on_air_s = cut.token_bytes / there.bytes_per_s
    prompt_token_s = first * here.prompt_token_s + rest * there.prompt_token_s
    token_s = first * here.token_s + rest * there.token_s + on_air_s + 2 * there.latency_s
    rented = rest * there.prompt_token_s / prompt_token_s if prompt_token_s else 0.0
    return replace(
        there,
        name=f"{there.name}|{cut.layers:g}",
        machine=there.machine or there.name,
        layers_here=first,
        ready_s=max(here.ready_s, there.ready_s),
        sent_bytes=cut.prompt_bytes,
        prompt_token_s=prompt_token_s,
        token_s=token_s,
        price_per_s=there.price_per_s * rented,
        energy_per_prompt_token_j=first * here.energy_per_prompt_token_j,
        energy_per_token_j=first * here.energy_per_token_j + on_air_s * there.send_w,
    )
