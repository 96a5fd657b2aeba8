"""Grids: what is packed is what was rounded, searched scales err less, errors are made up for."""

from __future__ import annotations

import numpy as np
import pytest
from test_transforms import Arrays, spec

from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.quant import dequantize, stored_bytes
from pentad.execution.rounding.grid import Grid
from pentad.execution.rounding.group_grid import GroupGrid, float_levels
from pentad.execution.rounding.table import GRIDS, fitting
from pentad.execution.taps import Tap
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import Unit
from pentad.model.transforms.compensation import round_compensated, round_plain
from pentad.model.transforms.hessian import inverse_factor, output_error

ROWS, COLUMNS = 24, 512
OWN = {
    "integers": GroupGrid(width=3, elements=64),
    "symmetric": GroupGrid(width=4, elements=64, numbers="symmetric"),
    "floats": GroupGrid(width=6, elements=64, numbers="floats"),
}
ALL = {**GRIDS, **OWN}


@pytest.fixture(scope="module")
def matrix() -> Floats:
    return np.random.default_rng(0).standard_t(5, (ROWS, COLUMNS)).astype(np.float32) / 20


@pytest.fixture(scope="module")
def inputs() -> Floats:
    """Some columns carry far more than others, and all of them together."""
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(1500, 64)) @ rng.normal(size=(64, COLUMNS)) / 8 + rng.normal(
        size=(1500, COLUMNS)
    )
    return (mixed * np.exp(rng.normal(size=COLUMNS))).astype(np.float32)


def stored(grid: Grid, data: np.ndarray) -> Floats:
    shape = (ROWS, COLUMNS)
    return dequantize(StoredTensor(name="w", format=grid.format, shape=shape, data=data.reshape(-1)))


@pytest.mark.row("quant-ptq-rtn", "mechanism")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("search", [False, True])
def test_what_is_packed_is_what_was_rounded(name: str, search: bool, matrix: Floats) -> None:
    grid = ALL[name]
    data, values = round_plain(grid, matrix, None, search=search)
    np.testing.assert_allclose(stored(grid, data), values, atol=1e-3 * np.abs(matrix).max(), rtol=0)
    assert data.size == stored_bytes(grid.format, (ROWS, COLUMNS))
    if name in GEOMETRY:
        assert grid.bits == GEOMETRY[name].bits  # type: ignore[index]


@pytest.mark.parametrize("name", ALL)
def test_every_number_gets_the_level_that_lies_nearest(name: str, matrix: Floats) -> None:
    grid = ALL[name]
    blocks = matrix.reshape(-1, grid.elements)
    scales = grid.fit(blocks, None, search=True)
    _, values = round_plain(grid, matrix, None, search=True)
    size = grid.elements // grid.parts
    parts = blocks.reshape(-1, size)
    scale = scales.scale.reshape(-1, 1)
    offset = 0 if scales.offset is None else scales.offset.reshape(-1, 1)
    for part, number, one in zip(parts[:40], values.reshape(-1, size)[:40], range(40), strict=False):
        at = offset if isinstance(offset, int) else offset[one]
        candidates = grid.levels * scale[one] + at
        least = np.abs(part[:, None] - candidates).min(axis=1)
        np.testing.assert_allclose(np.abs(part - number), least, atol=1e-5)


@pytest.mark.row("quant-ptq-rtn", "mechanism")
@pytest.mark.parametrize("name", ALL)
def test_searched_scales_err_less_and_errors_made_up_for_still_less(
    name: str, matrix: Floats, inputs: Floats
) -> None:
    grid, gram = ALL[name], inputs.T @ inputs
    weights = np.diag(gram) / np.float32(len(inputs))
    plain = round_plain(grid, matrix, weights, search=False)[1]
    searched = round_plain(grid, matrix, weights, search=True)[1]
    factor = inverse_factor(gram, 0.01)
    data, made_up = round_compensated(grid, matrix, factor, weights, search=True)
    errors = [output_error(found - matrix, gram) for found in (plain, searched, made_up)]
    assert errors[0] > errors[1] > 1.5 * errors[2]
    np.testing.assert_allclose(stored(grid, data), made_up, atol=1e-3 * np.abs(matrix).max(), rtol=0)


def test_compensation_is_the_best_that_the_columns_behind_can_do(inputs: Floats) -> None:
    """Against least squares, column by column, on a grid so fine in later columns that they are free."""
    rng = np.random.default_rng(2)
    columns = 8
    gram = (inputs[:, :columns].T @ inputs[:, :columns]).astype(np.float64)
    row = rng.normal(size=columns)
    factor = inverse_factor(gram.astype(np.float32), 1e-6)
    fixed = np.float32(np.rint(row[0]))
    left = row - (row[0] - fixed) / factor[0, 0] * factor[0]
    rest = np.linalg.solve(gram[1:, 1:], gram[1:, 0]) * (row[0] - fixed)
    np.testing.assert_allclose(left[1:], row[1:] + rest, rtol=1e-3, atol=1e-4)


def test_floats_are_those_of_the_microscaling_formats() -> None:
    assert float_levels(4).tolist()[7:] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert float_levels(6).max() == 28
    assert np.diff(float_levels(6)).min() == 0.0625


@pytest.mark.parametrize(
    ("format", "columns", "found"),
    [("Q4_K", 512, "Q4_K"), ("Q4_K", 576, "Q4_0"), ("Q6_K", 896, "Q8_0"), ("Q4_0", 40, "F16")],
)
def test_rows_that_do_not_divide_get_a_format_of_as_many_bits(format: str, columns: int, found: str) -> None:
    assert fitting(format, columns) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gptq:format=IQ2_S", "matrices cannot be written as 'IQ2_S'; choose one of F32"),
        ("gptq:bits=9", "bits is 9; integers have 2, 3"),
        ("gptq:bits=5,numbers=floats", "bits is 5; floats have 3, 4, 6, 8"),
        ("gptq:bits=4,group=-1", "group is -1"),
    ],
)
def test_grids_that_are_none_are_refused(method: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        build("transform", Choice.of(method))


def tapped(inputs: Floats, matrix: Floats) -> Unit:
    tap = Tap(
        rows=len(inputs),
        square_sum=np.square(inputs).sum(0),
        absolute_sum=np.abs(inputs).sum(0),
        gram=inputs.T @ inputs,
        low=inputs.min(0),
        high=inputs.max(0),
    )
    source = Arrays({"layers.0.q": matrix})
    return Unit(spec=spec(), layer=0, source=source, taps={"layers.0.q": tap})


@pytest.mark.parametrize("format", ["Q4_0", "Q4_K", "Q3_K", "Q8_0"])
def test_methods_write_the_formats_of_files_in_their_order(
    format: str, inputs: Floats, matrix: Floats
) -> None:
    unit = tapped(inputs, matrix)
    errors = {}
    for method in ("round-to-nearest", "importance", "gptq"):
        made = build("transform", Choice.of(f"{method}:format={format}")).rewrite(unit)["layers.0.q"]
        assert made.format == format
        tap = unit.taps["layers.0.q"]
        assert tap.gram is not None
        errors[method] = output_error(dequantize(made) - matrix, tap.gram)
    assert errors["round-to-nearest"] > errors["importance"] > errors["gptq"]
