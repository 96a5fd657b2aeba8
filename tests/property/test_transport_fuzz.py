"""What comes from a socket is of the wire, in its order and unchanged, or ends the link: fuzzed."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import BackendFailed, PentadError
from pentad.execution.batch import RaggedBatch
from pentad.execution.codecs.base import decoded
from pentad.execution.ranks.messages import Step, Weight, batch_of
from pentad.execution.ranks.parcels import Parcel
from pentad.execution.ranks.records import of_plain, to_plain
from pentad.execution.transport.base import Received
from rank_support import tiny_spec
from wire_fuzz import PROPERTIES

SIZES = st.integers(-2, 5) | st.just(1 << 40)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("record", "values", "blocks", "order", "ModelSpec")), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("prop", PROPERTIES)
def test_frames_that_nobody_sends(prop: Callable[[int], None]) -> None:
    for seed in range(1500):
        prop(seed)


@pytest.mark.slow
@pytest.mark.parametrize("prop", PROPERTIES)
def test_frames_that_nobody_sends_for_long(prop: Callable[[int], None]) -> None:
    """PENTAD_FUZZ_S seconds in all, 60 unless set: 3600 for an hour. A seed that fails is told."""
    until_s = time.monotonic() + float(os.environ.get("PENTAD_FUZZ_S", "60")) / len(PROPERTIES)
    seed = random.SystemRandom().getrandbits(48)
    while time.monotonic() < until_s:
        seed += 1
        try:
            prop(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@settings(max_examples=60)
@given(PLAIN)
def test_what_is_no_description_of_a_model_is_refused(data: Any) -> None:
    with contextlib.suppress(PentadError):
        of_plain(data)


@settings(max_examples=60)
@given(st.data())
def test_a_description_with_a_part_changed_is_refused_or_a_record(data: st.DataObject) -> None:
    plain = to_plain(tiny_spec())
    values = plain["values"]
    values[data.draw(st.sampled_from(sorted(values)))] = data.draw(PLAIN)
    with contextlib.suppress(PentadError):
        of_plain(plain)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("token_ids", "positions", "slots", "starts", "__class__", "head_slots")),
            st.sampled_from(("<i4", "<u8", "<f4", "|O", "nonsense")),
            st.lists(SIZES, max_size=3).map(tuple),
            st.binary(max_size=40),
        ),
        max_size=5,
    )
)
def test_a_batch_of_other_arrays_is_refused(fields: list[tuple[str, str, tuple[int, ...], bytes]]) -> None:
    step = Step(fields=tuple((name, dtype, shape) for name, dtype, shape, _ in fields), pieces=1)
    try:
        found = batch_of(Received(step, [data for *_, data in fields]))
    except BackendFailed:
        return
    assert isinstance(found, RaggedBatch)


@settings(max_examples=60)
@given(st.sampled_from(("F32", "Q8_0", "nonsense")), st.lists(SIZES, max_size=3), st.binary(max_size=80))
def test_a_tensor_of_another_size_is_refused(kind: str, shape: list[int], data: bytes) -> None:
    parcel = Parcel()
    message = Weight(name="w", format=kind, shape=tuple(shape), last=True, extra=False)
    try:
        parcel.take(Received(message, [data]))
    except PentadError:
        assert not parcel.tensors
        return
    assert memoryview(parcel.tensors["w"].data).nbytes == len(data)  # type: ignore[arg-type]


@settings(max_examples=80)
@given(
    st.sampled_from(registry.known("codec")),
    st.lists(st.binary(max_size=64), max_size=4),
    st.tuples(SIZES, SIZES),
)
def test_rows_of_another_size_are_refused(name: str, buffers: list[bytes], shape: tuple[int, int]) -> None:
    codec = build("codec", Choice(name=name))
    try:
        found = decoded(codec, buffers, shape)
    except BackendFailed:
        return
    assert found.shape == shape
    assert found.dtype == np.float32
