"""Logging of a Pentad process: one line per record on standard error, nothing on standard output."""

from __future__ import annotations

import logging
import sys


def set_up_logging(level: str) -> None:
    """Sends records of `level` and above to standard error; libraries speak from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("pentad").setLevel(getattr(logging, level.upper()))
