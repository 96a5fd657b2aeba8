"""The `pentad` command: verbs in Typer, imported and joined only when one runs."""

from __future__ import annotations

import os
import sys

from pentad.application.cli import overview

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process: exit 0 done, 1 failed, 2 usage, 3 infeasible."""
    words = sys.argv[1:]
    if words in overview.ASKED and "_PENTAD_COMPLETE" not in os.environ:
        overview.show()
        sys.exit(0 if words else 2)
    from pentad.application.cli import app

    app.main()
