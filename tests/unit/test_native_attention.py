"""Attention of the native kernels against the formula: exact on the numbers they keep, in little memory.

Queries, keys and values are kept in bfloat16, and so are the unnormalised probabilities. So what the
kernels give differs from the plain formula on the same rounded queries, keys and values by the
rounding of probabilities, at most 2^-9 of each; where the formula rounds them as well, it is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from native_support import HERE
from pentad.execution.native.library import KernelLibrary, open_library

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

Floats = npt.NDArray[np.float32]

EXACT = 1e-5
PAGE, SPAN, TILE = 16, 256, 16
WAYS = [(name, False) for name in HERE] + [(name, True) for name in HERE if name == "amx"]
"""Instruction set, and whether on tiles as a prompt, or in rows as generated tokens."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How products become scores, and scores weights."""

    scale: float | None = None
    cap: float = 0.0
    slope: float = 0.0
    sink: float = -np.inf

    def numbers(self, dim: int) -> tuple[float, float, float, float]:
        return dim**-0.5 if self.scale is None else self.scale, self.cap, self.slope, self.sink


PLAIN = Rule()


@pytest.fixture(scope="module", params=WAYS, ids=[f"{name}{' tiles' * tiled}" for name, tiled in WAYS])
def way(request: pytest.FixtureRequest) -> tuple[KernelLibrary, bool]:
    name, tiled = request.param
    return open_library(name), tiled


def attend(
    way: tuple[KernelLibrary, bool], q: Floats, k: Floats, v: Floats, window: int = 0, rule: Rule = PLAIN
) -> tuple[Floats, int]:
    """What the kernels give for the last queries of a context, and the bytes that they work in."""
    library, tiled = way
    out = np.empty_like(q)
    nbytes = library.functions.pentad_attend(
        *(x.ctypes.data for x in (q, k, v)),
        len(q),
        *k.shape,
        window,
        int(tiled),
        *rule.numbers(k.shape[1]),
        out.ctypes.data,
    )
    if tiled and nbytes < 0:
        pytest.skip("the system gives this process no tiles")
    return out, nbytes


def bf16(values: npt.NDArray[np.floating]) -> Floats:
    """Rounded to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def scores(q: Floats, k: Floats, window: int) -> Floats:
    """[count, context], minus infinity where a query does not see."""
    scale = np.float32(1) / np.sqrt(np.float32(k.shape[1]))
    found = bf16(q).astype(np.float64) @ bf16(k).astype(np.float64).T
    found = found.astype(np.float32) * scale
    at = np.arange(len(k) - len(q), len(k))[:, None]
    slots = np.arange(len(k))
    unseen = (slots > at) | ((slots <= at - window) if window else False)
    return np.where(unseen, np.float32(-np.inf), found)


def plain(q: Floats, k: Floats, v: Floats, window: int) -> tuple[Floats, Floats]:
    """The formula in float64 on rounded inputs, and the mean of |v| under the same probabilities."""
    x = scores(q, k, window).astype(np.float64)
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p @ bf16(v), p @ np.abs(bf16(v))


def rounding_alike(q: Floats, k: Floats, v: Floats, window: int, tiled: bool) -> Floats:
    """The formula with probabilities rounded where the kernels round them.

    Rows know their greatest score first. Tiles go over spans of 256 slots, and what they have is
    scaled down when a greater score comes (the online softmax).
    """
    x, values = scores(q, k, window), bf16(v)
    if not tiled:
        e = np.exp(x - x.max(-1, keepdims=True))
        return bf16(e) @ values / e.sum(-1, keepdims=True)
    out = np.empty_like(q)
    for begin in range(0, len(q), TILE):
        rows = x[begin : begin + TILE]
        limit = len(k) - len(q) + begin + 1
        first = (limit - window) // SPAN * SPAN if window and limit > window else 0
        top = np.full((len(rows), 1), -np.inf, np.float32)
        total, sums = np.zeros((len(rows), 1)), np.zeros((len(rows), k.shape[1]))
        for at in range(first, len(k), SPAN):
            span = rows[:, at : at + SPAN]
            new = np.maximum(top, span.max(-1, keepdims=True))
            safe = np.where(np.isinf(new), np.float32(0), new)
            keep, e = np.exp(top - safe), np.exp(span - safe)
            total = total * keep + e.sum(-1, keepdims=True)
            sums = sums * keep + bf16(e) @ values[at : at + SPAN]
            top = new
        out[begin : begin + TILE] = sums / total
    return out


def drawn(count: int, context: int, dim: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    shapes = ((count, dim), (context, dim), (context, dim))
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return q, k, v


@pytest.mark.row("mem-flashattention", "mechanism")
@pytest.mark.parametrize(
    ("count", "context", "dim", "window"),
    [
        (1, 1, 64, 0),
        (1, 700, 64, 0),
        (37, 37, 64, 0),
        (50, 1000, 128, 0),
        (40, 900, 96, 0),
        (33, 800, 64, 300),
    ],
)
def test_the_formula_on_the_same_rounded_numbers_is_met(
    way: tuple[KernelLibrary, bool], count: int, context: int, dim: int, window: int
) -> None:
    q, k, v = drawn(count, context, dim)
    found, _ = attend(way, q, k, v, window)
    exact, spread = plain(q, k, v, window)
    assert (np.abs(found - exact) <= spread / 512 + EXACT).all()
    apart = np.abs(found - rounding_alike(q, k, v, window, way[1]))
    # Sums in another order move a score's last bit, and a probability may then round to its other neighbour.
    assert np.quantile(apart, 0.99) < EXACT
    assert (apart <= spread / 256 / 8 + EXACT).all()


@pytest.mark.row("mem-flashattention", "mechanism", claims=(2,))
def test_memory_grows_with_the_length_and_not_with_its_square(way: tuple[KernelLibrary, bool]) -> None:
    dim, used = 64, []
    for length in (256, 512, 1024, 2048):
        q, k, v = drawn(64, length, dim)
        _, nbytes = attend(way, q, k, v)
        assert nbytes == attend(way, q[:1], k, v)[1]  # however many queries there are
        used.append(nbytes)
    if way[1]:
        assert len(set(used)) == 1
        assert used[0] < 96 << 10  # rows of up to 640 values, in bfloat16 and in float32
    else:
        rows = 8
        assert used == [rows * (4 * (length + PAGE) + 2 * dim) for length in (256, 512, 1024, 2048)]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(scale=0.3),
        Rule(cap=1.5),
        Rule(slope=0.02),
        Rule(sink=2.0),
        Rule(scale=0.2, cap=3, slope=0.5, sink=-1),
    ],
)
@pytest.mark.parametrize(
    ("count", "context", "window"), [(1, 5, 0), (1, 600, 0), (40, 300, 0), (33, 700, 290)]
)
def test_scores_are_scaled_capped_lowered_by_distance_and_drained_by_a_sink(
    way: tuple[KernelLibrary, bool], count: int, context: int, window: int, rule: Rule
) -> None:
    q, k, v = drawn(count, context, 64)
    found, _ = attend(way, q, k, v, window, rule)
    scale, cap, slope, sink = rule.numbers(64)
    x = bf16(q).astype(np.float64) @ bf16(k).astype(np.float64).T * scale
    x = cap * np.tanh(x / cap) if cap else x
    at, slots = np.arange(context - count, context)[:, None], np.arange(context)
    x = x - slope * (at - slots)
    x[(slots > at) | ((slots <= at - window) if window else False)] = -np.inf
    top = np.maximum(x.max(-1, keepdims=True), sink)
    p = np.exp(x - top)
    p /= p.sum(-1, keepdims=True) + np.exp(sink - top)
    assert (np.abs(found - p @ bf16(v)) <= p @ np.abs(bf16(v)) / 256 + EXACT).all()


def test_sizes_that_do_not_fit_are_refused() -> None:
    library = open_library(HERE[-1])
    q, k, v = drawn(2, 4, 64)
    place = [x.ctypes.data for x in (q, k, v)]
    for count, context, dim, window in [(0, 4, 64, 0), (5, 4, 64, 0), (2, 4, 40, 0), (2, 4, 64, -1)]:
        assert (
            library.functions.pentad_attend(
                *place, count, context, dim, window, 0, *PLAIN.numbers(dim), q.ctypes.data
            )
            == -1
        )
