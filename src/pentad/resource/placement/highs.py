"""HiGHS, the solver of mixed-integer programs: from the extra `milp`, quiet and repeatable."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from pentad.errors import MissingExtra


def open_highs(strategy: str, *, gap: float, seconds: float) -> Any:
    """An empty model on one thread.

    Args:
        strategy: who asks, for the message.
        gap: the solver may stop this close to its bound, as a share.
        seconds: after which it stops with the best solution so far.

    Raises MissingExtra where HiGHS is not installed.
    """
    try:
        highspy: Any = importlib.import_module("highspy")
    except ImportError:
        raise MissingExtra(
            f"strategy {strategy!r} solves a mixed-integer program with HiGHS, which is not installed",
            hint='pip install "pentad[milp]", or choose --strategy auto',
        ) from None
    with _no_banner():
        model = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("mip_rel_gap", gap),
        ("time_limit", seconds),
        ("threads", 1),
        ("random_seed", 0),
    ):
        model.setOptionValue(option, value)
    return model


@contextlib.contextmanager
def _no_banner() -> Iterator[None]:
    """HiGHS writes its version to the standard output when it is made, which is for plans."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
