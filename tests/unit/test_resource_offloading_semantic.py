"""Meaning on top of bits: how alike what arrives is, and how two receivers divide a band."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.resource.offloading.base import OffloadInput, OffloadTask, Site
from pentad.resource.offloading.radio import (
    NOISE_W_PER_HZ,
    Division,
    SharedBand,
    bits_rate,
    meaning_snr_db,
    path_gain,
)
from pentad.resource.offloading.semantic import (
    SimilarityCurve,
    best_division,
    bits_alone,
    fit_similarity,
    region,
    simulated_similarity,
)

NOISE_W = NOISE_W_PER_HZ * 1e6
BAND = SharedBand(bandwidth_hz=1e6, power_w=1.0, meaning_gain=30 * NOISE_W, bits_gain=15 * NOISE_W)


@pytest.mark.row("cm-semi-noma", "mechanism")
def test_bits_see_meaning_as_noise_and_are_taken_away_before_it() -> None:
    whole = Division(shared=1.0, meaning_power=0.2, bits_power=0.8)
    # 12 of power against 1 of noise and 3 of meaning at the receiver of bits, 24 against 1 and 6 at the
    # other.
    assert bits_rate(BAND, whole) == pytest.approx(1e6 * np.log2(1 + 12 / 4))
    assert meaning_snr_db(BAND, whole) == pytest.approx(10 * np.log10(6))
    apart = Division(shared=0.5, meaning_power=0.5, bits_power=0.0)
    assert bits_rate(BAND, apart) == pytest.approx(0.5e6 * np.log2(1 + 15))
    assert meaning_snr_db(BAND, apart) == pytest.approx(10 * np.log10(30))
    weak = dataclasses.replace(BAND, meaning_gain=5 * NOISE_W)
    # Its receiver must decode the bits too: 4 against 1 and 1.
    assert bits_rate(weak, whole) == pytest.approx(1e6 * np.log2(1 + 4 / 2))
    with pytest.raises(InvalidRequest, match="bits_gain"):
        dataclasses.replace(BAND, bits_gain=0.0)


@pytest.mark.row("cm-semi-noma", "mechanism")
def test_a_division_found_keeps_its_promise_by_the_formulas_of_one_division() -> None:
    curve = SimilarityCurve()
    for access in ("oma", "noma", "semi-noma"):
        found = best_division(BAND, 1.5e6, access=access, curve=curve)  # type: ignore[arg-type]
        division = found.division
        assert bits_rate(BAND, division) == pytest.approx(found.bits_per_s, rel=1e-6)
        assert found.bits_per_s >= 1.5e6 * (1 - 1e-9)
        words = division.shared * 1e6 / 4 * float(curve.at(meaning_snr_db(BAND, division)))
        assert found.words_per_s == pytest.approx(words, rel=1e-6)
    assert best_division(BAND, 2 * bits_alone(BAND)).words_per_s == 0
    with pytest.raises(InvalidRequest, match="bits_per_s"):
        best_division(BAND, -1.0)


def test_the_policy_goes_where_the_answer_is_soonest_and_may_be_held_to_simpler_access() -> None:
    plain = Site(name="plain", kind="edge", bytes_per_s=1e6, token_s=0.02)
    narrow = dataclasses.replace(BAND, bandwidth_hz=400.0, meaning_gain=3e-16, bits_gain=3e-16)
    shared = dataclasses.replace(plain, name="shared", token_s=0.01, band=narrow)
    task = OffloadTask(id="r", prompt_tokens=1, answer_tokens=100)

    def chosen(bits_share: float, access: str) -> str:
        site = dataclasses.replace(shared, band_bits_per_s=bits_share * bits_alone(narrow))
        working = build("offload", Choice(name="semi-noma", options={"access": access})).start()
        return str(working.choose(OffloadInput(task=task, sites=(plain, site), now_s=0.0))[0])

    assert chosen(0.0, "oma") == chosen(0.0, "semi-noma") == "shared"
    assert chosen(1.0, "semi-noma") == "plain"
    with pytest.raises(InvalidRequest, match="least_similarity"):
        build("offload", Choice(name="semi-noma", options={"least_similarity": 2.0}))
    with pytest.raises(InvalidRequest, match="at least 4 points"):
        fit_similarity([1, 2], [0, 1], 4)


@pytest.mark.row("cm-semi-noma", "effect", claims=(2,))
@pytest.mark.parametrize("symbols", [4, 6])
def test_the_fitted_curve_is_near_what_was_not_fitted(symbols: int, measured: Measure) -> None:
    seen, unseen = np.arange(-14, 15, 2.0), np.arange(-13, 14, 2.0)
    draws = [simulated_similarity(each, symbols_per_word=symbols) for each in seen]
    curve = fit_similarity(list(seen), draws, symbols)
    wanted = [simulated_similarity(each, symbols_per_word=symbols) for each in unseen]
    off = np.abs(curve.at(unseen) - wanted)
    measured(f"largest error on 14 points between, {symbols} symbols a word", float(off.max()), at_most=0.05)


@pytest.mark.row("cm-semi-noma", "effect", claims=(1,))
def test_the_region_holds_every_point_of_both_simpler_ways(measured: Measure) -> None:
    """30 pairs of receivers 50 to 600 m from a mast of 1 W and 1 MHz, with fading; 7 rates of bits each."""
    draw = np.random.default_rng(17)
    least, gains = np.inf, []
    for _ in range(30):
        near, far = (path_gain(each) * draw.exponential() for each in draw.uniform(50, 600, 2))
        band = SharedBand(bandwidth_hz=1e6, power_w=1.0, meaning_gain=near, bits_gain=far)
        ways = [region(band, access, 7) for access in ("semi-noma", "noma", "oma")]  # type: ignore[arg-type]
        for ours, noma, oma in zip(*ways, strict=True):
            simpler = max(noma.words_per_s, oma.words_per_s)
            if simpler > 0:
                least = min(least, ours.words_per_s / simpler)
                gains.append(ours.words_per_s / simpler)
    print(
        f"\nof {len(gains)} points {np.mean(np.array(gains) > 1.001):.0%} are better than both, "
        f"at most {max(gains):.2f}x"
    )
    measured(
        "words per second over the better of OMA and NOMA, least of all points", least, at_least=1.0, unit="x"
    )
