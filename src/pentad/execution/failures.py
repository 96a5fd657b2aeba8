"""What consumers are told when something under the engine raised.

The text names the kind of error only: messages of libraries may hold addresses or paths, and go
to the log.
"""

from __future__ import annotations

import logging

from pentad.errors import BackendFailed, PentadError
from pentad.execution.sequence import Sequence

_log = logging.getLogger(__name__)


def runner_failure(seq: Sequence, error: Exception) -> PentadError:
    """The error for a sequence whose step the runner failed."""
    _log.error("the step with request %s failed", seq.id, exc_info=error)
    failed = BackendFailed(
        f"the model runner failed with {type(error).__name__} while serving request {seq.id!r}",
        hint="try again; the server's log has the cause",
    )
    failed.__cause__ = error
    return failed


def sequence_failure(seq: Sequence, error: Exception) -> PentadError:
    """The error for a sequence whose own constraint or watcher raised; a PentadError as it is."""
    if isinstance(error, PentadError):
        return error
    _log.error("constraint or watcher of request %s failed", seq.id, exc_info=error)
    failed = BackendFailed(
        f"checking the output of request {seq.id!r} failed with {type(error).__name__}",
        hint="change the output format or stop strings; the server's log has the cause",
    )
    failed.__cause__ = error
    return failed
