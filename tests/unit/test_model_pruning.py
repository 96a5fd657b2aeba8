"""Pruning of single weights with compensation: what goes, what makes up for it, in which pattern."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.taps import Gradient, Tap
from pentad.model.transforms.gblm import GBLM
from pentad.model.transforms.hessian import damped, inverse_factor, output_error
from pentad.model.transforms.magnitude import Magnitude
from pentad.model.transforms.mixed_sparsity import MixedSparsity, spread_shares
from pentad.model.transforms.sparsegpt import SparseGPT
from pentad.model.transforms.wanda import Wanda


def entered(rows: int = 400, columns: int = 48, seed: int = 0) -> np.ndarray:
    """Rows that enter a matrix, their columns correlated and of unequal size."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) / 4
    return (mixed * rng.uniform(0.2, 3, columns)).astype(np.float32)


def tap_of(x: np.ndarray) -> Tap:
    return Tap(
        rows=len(x),
        square_sum=np.square(x).sum(0),
        absolute_sum=np.abs(x).sum(0),
        gram=x.T @ x,
    )


def matrix(rows: int = 16, columns: int = 48) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, columns)).astype(np.float32)


def swept(values: np.ndarray, gram: np.ndarray, damping: float, sparsity: float) -> np.ndarray:
    """SparseGPT by its definition: column by column, with the inverse of what is left, in float64."""
    h = gram.astype(np.float64)
    h += damping * np.diag(h).mean() * np.eye(len(h))
    inverses = [np.linalg.inv(h[j:, j:]) for j in range(len(h))]
    first = np.array([inverse[0, 0] for inverse in inverses])
    costs = values.astype(np.float64) ** 2 / first
    doomed = costs <= np.sort(costs.ravel())[int(sparsity * costs.size) - 1]
    left = values.astype(np.float64)
    for j, inverse in enumerate(inverses):
        left[:, j:] -= np.outer(np.where(doomed[:, j], left[:, j], 0) / inverse[0, 0], inverse[0])
        left[doomed[:, j], j] = 0
    return left


@pytest.mark.row("prune-sparsegpt", "mechanism")
def test_each_column_that_goes_is_made_up_for_by_the_inverse_of_those_behind_it() -> None:
    x, values = entered(), matrix()
    found = SparseGPT(sparsity=0.5).matrix(values, tap_of(x))
    np.testing.assert_allclose(found, swept(values, x.T @ x, 0.01, 0.5), rtol=2e-2, atol=2e-3)
    assert (found == 0).sum() == values.size // 2


@pytest.mark.row("prune-sparsegpt", "mechanism")
@pytest.mark.parametrize("pattern", ["", "2:4", "4:8"])
def test_compensation_loses_less_of_the_output_than_scores_alone(pattern: str) -> None:
    x, values = entered(columns=320), matrix(columns=320)
    tap = tap_of(x)
    lost = {}
    for kind in (Magnitude, Wanda, SparseGPT):
        found = kind(pattern=pattern).matrix(values, tap)  # type: ignore[arg-type]
        lost[kind.name] = output_error(found - values, x.T @ x)
        if pattern:
            kept, group = map(int, pattern.split(":"))
            assert ((found != 0).reshape(-1, group).sum(1) == kept).all()
        else:
            assert (found == 0).sum() == pytest.approx(values.size / 2, abs=len(values))
    assert lost["sparsegpt"] < lost["wanda"] < lost["magnitude"]


def with_gradient(tap: Tap, square_sum: np.ndarray, windows: int = 4) -> Tap:
    return replace(tap, gradient=Gradient(windows=windows, total=square_sum, square_sum=square_sum))


@pytest.mark.row("prune-gblm", "mechanism")
def test_gradients_count_beside_activations_or_alone() -> None:
    values = np.ones((2, 4), np.float32)
    x = np.array([[3, 2, 1, 4]], np.float32)
    slopes = np.array([[1, 9, 25, 4], [0, 0, 0, 0]], np.float32) * 4  # norms 1, 3, 5, 2 a window
    tap = with_gradient(tap_of(x), slopes)
    both, alone = GBLM(scale=1).matrix(values, tap), GBLM(scale=1, activations=False).matrix(values, tap)
    assert (both[0] == 0).tolist() == [True, True, False, False], "scores 4, 5, 6, 6"
    assert (alone[0] == 0).tolist() == [True, False, False, True], "scores 1, 3, 5, 2"
    plain = Wanda().matrix(matrix(2, 4), tap)
    np.testing.assert_array_equal(GBLM(scale=0).matrix(matrix(2, 4), tap), plain)


@pytest.mark.row("prune-shao-mixed", "mechanism")
@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=30),
    sparsity=st.floats(0, 0.9),
    spread=st.floats(0, 0.49),
)
def test_shares_fall_with_sensitivity_and_the_total_is_kept(
    sizes: list[int], sparsity: float, spread: float
) -> None:
    found = spread_shares(sizes, sparsity, spread)
    assert found == sorted(found, reverse=True)
    assert all(0 <= share < 1 for share in found)
    gone = sum(share * size for share, size in zip(found, sizes, strict=True))
    assert gone / sum(sizes) == pytest.approx(sparsity, abs=1e-5)


@pytest.mark.row("prune-shao-mixed", "mechanism")
def test_a_weight_that_costs_without_compensation_counts_as_well() -> None:
    x, values = entered(), matrix()
    gram, method = x.T @ x, MixedSparsity()
    factor = inverse_factor(gram, 0.01)
    obs, obd = SparseGPT().importance(gram, factor), np.diag(damped(gram, 0.01))
    np.testing.assert_allclose(method.importance(gram, factor), obs + obd, rtol=1e-5)
    assert (method.matrix(values, tap_of(x)) == 0).sum() == values.size // 2
    with pytest.raises(Incompatible, match="a pattern of 2:4 leaves no sparsity to mix; choose sparsegpt"):
        MixedSparsity(pattern="2:4")


def test_columns_that_nothing_enters_go_first() -> None:
    x = entered()
    x[:, 5] = 0
    found = SparseGPT(sparsity=0.1).matrix(matrix(), tap_of(x))
    assert np.isfinite(found).all()


def test_a_sparsity_or_damping_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sparsity is 1, must be 0 to below 1"):
        SparseGPT(sparsity=1)
    with pytest.raises(InvalidRequest, match=r"damping is 0, must be above 0 to 1; 0\.01 is usual"):
        SparseGPT(damping=0)


def test_second_moments_that_cannot_be_inverted_name_the_remedy() -> None:
    with pytest.raises(Incompatible, match="set the method's damping higher or calibrate on a longer text"):
        inverse_factor(np.array([[1, 2], [2, 1]], np.float32), 0.01)
