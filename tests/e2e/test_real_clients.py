"""Light ones of the clients of scripts/real_clients, which CI runs too: their own process, their own code."""

from __future__ import annotations

import pathlib
import sys

import pytest

from real_clients.case import Case
from real_clients.libraries import CASES
from real_clients.world import run

LIGHT = [case for case in CASES if case.light]


@pytest.mark.parametrize("case", LIGHT, ids=lambda case: case.name)
def test_an_unmodified_client_does_its_work(case: Case) -> None:
    case.check(run(case, pathlib.Path(sys.prefix)))


def test_every_light_client_is_run_here() -> None:
    assert {case.name for case in LIGHT} == {"anthropic", "openai-agents", "pydantic-ai"}
