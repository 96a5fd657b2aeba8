"""Every number that a person gives is checked where it enters, and named with its range and remedy."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cli_support import Pentad
from pentad.application.cli.app import build
from pentad.application.config import Settings, leaves
from pentad.application.config_loading import resolve
from pentad.errors import InvalidRequest
from pentad.ranges import in_range

SETTINGS = {path[-1]: path for path in leaves()}
LINES = 2
"""What an error takes: one line, and one for the hint."""


def numeric_options(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every option of the tree of verbs that takes a number and stands for no setting."""
    command = command or typer.main.get_command(build())
    for name, inner in getattr(command, "commands", {}).items():
        yield from numeric_options(inner, (*path, name))
    for option in command.params:
        if option.type_descriptor.annotation in (int, float) and option.name not in SETTINGS:
            yield " ".join((*path, option.opts[0])), option


@pytest.mark.parametrize(("where", "option"), [pytest.param(*o, id=o[0]) for o in numeric_options()])
def test_every_numeric_flag_refuses_what_is_no_number_of_its_range(where: str, option: Any) -> None:
    assert option.callback is not None, f"{where}: declare it with options.number"
    for value in (math.nan, math.inf, -math.inf, -1e300):
        with pytest.raises(InvalidRequest, match=f"{option.opts[0]} is ") as caught:
            option.callback(None, option, value)
        assert caught.value.hint == f"change {option.opts[0]}"


def numeric_settings() -> list[str]:
    found = []
    for name, path in SETTINGS.items():
        section: Any = Settings
        for part in path[:-1]:
            section = typing.get_type_hints(section)[part]
        kind = typing.get_type_hints(section)[path[-1]]
        kinds = set(typing.get_args(kind)) if isinstance(kind, types.UnionType) else {kind}
        if kinds & {int, float}:
            found.append(name)
    return found


@pytest.mark.parametrize("name", numeric_settings())
def test_every_numeric_setting_refuses_what_is_out_of_range(name: str) -> None:
    for text in ("nan", "inf", "-1e300", "-5"):
        with pytest.raises(InvalidRequest, match=name) as caught:
            resolve({name: text}, env={})
        assert f"--{name.replace('_', '-')}" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--drain-s", "-5"], "drain_s is -5.0; it must be at least 0"),
        (["serve", "--drain-s", "nan"], "drain_s"),
        (["plan", "m", "--link-bytes-per-s", "0"], "--link-bytes-per-s is 0.0; it must be above 0"),
        (["simulate", "poisson", "--kv-blocks", "0"], "--kv-blocks is 0; it must be at least 1"),
        (["simulate", "poisson", "--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["simulate", "poisson", "--rate-per-s", "inf"], "--rate-per-s is inf; it must be above 0"),
        (
            ["run", "m", "hi", "--temperature", "nan"],
            "--temperature is nan; it must be at least",
        ),
        (["runs", "list", "--status", "bogus"], "no run is ever 'bogus'"),
    ],
)
def test_a_number_out_of_range_is_one_line_with_its_flag(
    pentad_: Pentad, words: list[str], message: str
) -> None:
    outcome = pentad_(*words)
    lines = outcome.err.splitlines()
    assert (outcome.status, outcome.out, len(lines)) == (2, "", LINES)
    assert message in lines[0]
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, 65.0])
def test_a_range_tells_what_is_possible(value: float) -> None:
    with pytest.raises(InvalidRequest, match=r"bits is .*; it must be above 0 and at most 64") as caught:
        in_range("bits", value, above=0, most=64)
    assert caught.value.param == "bits"


def test_what_was_not_given_is_in_range() -> None:
    in_range("bits", None, least=1)
    in_range("bits", 1, least=1, most=1)
