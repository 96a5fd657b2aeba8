"""Runs the command line within the test's process, in a home and a folder of its own."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pentad.application.cli import main


@dataclass(frozen=True, kw_only=True)
class Outcome:
    status: int
    out: str
    err: str


Pentad = Callable[..., Outcome]


@pytest.fixture
def pentad_(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> Iterator[Pentad]:
    """Runs the command line in a home and a folder of its own; its logging ends with the test."""
    root, own = logging.getLogger(), logging.getLogger("pentad")
    before = (list(root.handlers), root.level, own.level)
    monkeypatch.setenv("PENTAD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pentad", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Outcome(status=int(ended.value.code or 0), out=printed.out, err=printed.err)

    mask = os.umask(0o077)
    yield run
    os.umask(mask)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
