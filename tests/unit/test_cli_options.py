"""The flags of the command line and the fields of Settings are one and the same."""

from __future__ import annotations

import typing

import pytest

from pentad.application.cli.options import AGENTS, COMMON, ENGINE, MODELS, SERVER, TELEMETRY, Flag
from pentad.application.config import leaves

FLAGS = (*AGENTS, *COMMON, *MODELS, *ENGINE, *SERVER, *TELEMETRY)


def test_every_flag_is_a_field() -> None:
    assert {flag.name for flag in FLAGS} <= {path[-1] for path in leaves()}


def test_every_engine_field_is_a_flag() -> None:
    assert {path[-1] for path in leaves() if path[0] == "engine"} == {flag.name for flag in ENGINE}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_a_flag_is_written_as_its_field_and_short_enough(flag: Flag) -> None:
    written = flag.written.split("/")[0]
    assert written.removeprefix("--").replace("-", "_") in (
        flag.name,
        flag.name.removesuffix("s"),
        flag.name.removesuffix("_bytes"),
    )
    assert len(written) < 30
    assert typing.get_origin(flag.kind) in (None, list)
