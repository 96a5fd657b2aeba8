"""Every codec: shape, stated error, bytes, what the far end makes of garbage, and of no rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import BackendFailed
from pentad.execution.codecs.base import Codec, Floats, report, shape_of

NAMES = registry.known("codec")


def codec(name: str, **options: Any) -> Codec:
    return build("codec", Choice(name=name, options=options))  # type: ignore[no-any-return]


def hidden(tokens: int = 12, width: int = 576) -> Floats:
    """Rows as models have them: heavy tails, and some features that range far."""
    rng = np.random.default_rng(4)
    rows = rng.standard_t(4, (tokens, width)) * rng.uniform(0.2, 2, width)
    rows[:, :3] *= 40
    return rows.astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(12, 576), (1, 64), (3, 50), (0, 64)])
def test_rows_come_back_in_their_shape_and_within_the_bound(name: str, shape: tuple[int, int]) -> None:
    made, rows = codec(name), hidden(*shape)
    before = rows.copy()
    found = made.decode([bytes(buffer) for buffer in made.encode(rows)], shape_of(rows))
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(rows, before)
    assert (np.abs(found - rows) <= made.error_bound(rows)).all()
    if made.exactness == "lossless":
        np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_are_written_in_the_same_way(name: str) -> None:
    made, rows = codec(name), hidden()
    assert [bytes(b) for b in made.encode(rows)] == [bytes(b) for b in made.encode(rows.copy())]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_decoded_is_hardly_changed_by_a_second_passage(name: str) -> None:
    made, rows = codec(name), hidden()
    once = made.decode(made.encode(rows), shape_of(rows))
    twice = made.decode(made.encode(once), shape_of(rows))
    assert np.linalg.norm(twice - once) <= 0.6 * np.linalg.norm(once - rows) + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_another_size_are_refused(name: str) -> None:
    made, rows = codec(name), hidden(4)
    buffers = [bytes(buffer) for buffer in made.encode(rows)]
    with pytest.raises(BackendFailed):
        made.decode([buffers[0][:-1], *buffers[1:]], shape_of(rows))
    with pytest.raises(BackendFailed):
        made.decode(buffers, (5, 576))


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name: str) -> None:
    made, rows = codec(name), np.zeros((2, 64), np.float32)
    np.testing.assert_array_equal(made.decode(made.encode(rows), (2, 64)), rows)


@pytest.mark.parametrize(
    ("name", "options", "most_bits"),
    [("int8", {}, 8.5), ("low-bit", {}, 4.5), ("sparse", {}, 4.0), ("protected", {}, 12.0)],
)
def test_a_number_takes_so_many_bits(name: str, options: dict[str, Any], most_bits: float) -> None:
    for tokens in (1, 12, 100):
        assert report(codec(name, **options), hidden(tokens)).bits <= most_bits


@pytest.mark.row("cm-lowbit-tp", "mechanism")
def test_features_that_range_far_keep_sixteen_bits() -> None:
    rows = hidden()
    found = codec("low-bit").decode(codec("low-bit").encode(rows), shape_of(rows))
    errors = np.abs(found - rows).max(0) / np.abs(rows).max(0)
    assert (errors[:3] < 2**-7).all()
    assert errors[3:].max() > 2**-6
    none = codec("low-bit", kept_fraction=0)
    assert report(none, rows).relative_error > report(codec("low-bit"), rows).relative_error


@pytest.mark.row("cm-act-sparsity", "mechanism")
def test_only_large_numbers_are_sent_and_zeros_cost_nothing() -> None:
    rows = hidden()
    found = codec("sparse").decode(codec("sparse").encode(rows), shape_of(rows))
    sent = found != 0
    wide = codec("sparse", keep_fraction=0.2, bits=16)
    few = wide.decode(wide.encode(rows), shape_of(rows)) != 0
    for row, kept in zip(np.abs(rows), few, strict=True):
        assert row[~kept].max() <= row[kept].min()
    assert sent.sum(1).max() <= 0.56 * rows.shape[1]
    relu = np.maximum(rows - 2, 0)
    exact = codec("sparse", keep_fraction=1, bits=16)
    np.testing.assert_array_equal(exact.decode(exact.encode(relu), shape_of(relu)) != 0, relu != 0)
    assert report(exact, relu).ratio > 4


def behind_loss(rows: Floats, **options: Any) -> tuple[Floats, Floats, float]:
    """Rows through a link that loses a twentieth of its packets, through one that loses none; bits."""
    found = []
    for loss in (0.05, 0.0):
        made = codec("protected", loss=loss, **options)
        found.append(made.decode(made.encode(rows), shape_of(rows)))
    return found[0], found[1], report(made, rows).bits


@pytest.mark.row("het-reliable-links", "mechanism")
def test_important_features_come_through_a_link_that_loses_packets() -> None:
    rows = hidden(200)
    found, whole, bits = behind_loss(rows)
    np.testing.assert_array_equal(found[:, :3], whole[:, :3])
    # The others are sent once: a twentieth of them is gone.
    assert 0.02 < (found != whole)[:, 3:].mean() < 0.08
    alike, alike_whole, same_bits = behind_loss(rows, protection="equal")
    assert abs(bits / same_bits - 1) < 0.01, "both protections take the same bytes"
    assert np.linalg.norm(found - whole) < 0.5 * np.linalg.norm(alike - alike_whole)


@pytest.mark.row("het-reliable-links", "mechanism")
def test_a_parity_packet_makes_up_for_one_that_was_lost() -> None:
    rows = hidden(200)
    gone = {}
    for copies in (2, 8):
        found, whole, _ = behind_loss(rows, protection="equal", copies=copies)
        gone[copies] = float((found != whole).mean())
    assert gone[8] < gone[2] < 0.05, "shorter groups lose less"
