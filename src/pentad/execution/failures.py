"""What consumers are told when something under the engine raised.

The text names the kind of error only: messages of libraries may hold addresses or paths, and go
to the log.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pentad.errors import BackendFailed, DeadlineExceeded, InvalidRequest, PentadError, Unavailable
from pentad.execution.batch import RowFault

if TYPE_CHECKING:
    from pentad.execution.scheduling import Refusal
    from pentad.execution.sequence import Sequence

_log = logging.getLogger(__name__)


def row_failure(id: str, fault: RowFault) -> PentadError:
    """The error for a sequence that no token can be drawn for; what the request can change is its own."""
    if fault == "overflow":
        return InvalidRequest(
            f"the penalties or the logit_bias of request {id!r} make infinite scores",
            hint="bring repetition_penalty nearer to 1 and logit_bias nearer to 0",
            param="repetition_penalty",
        )
    if fault == "none_allowed":
        return InvalidRequest(
            f"request {id!r} excludes every token: output format, min_tokens and logit_bias leave none",
            hint="loosen the output format or lower min_tokens",
        )
    if fault == "no_memory":
        return Unavailable(
            f"memory ran out while a token of request {id!r} was drawn",
            hint="try again later, or start with a smaller --kv-bytes or --max-sequences",
        )
    _log.error("the model computed NaN or infinity for request %s", id)
    return BackendFailed(
        f"the model's scores for request {id!r} are no numbers",
        hint="try another prompt; if every prompt fails, pull the model again",
    )


def runner_failure(seq: Sequence, error: Exception) -> PentadError:
    """The error for a sequence whose step the runner failed."""
    _log.error("the step with request %s failed", seq.id, exc_info=error)
    if isinstance(error, MemoryError):
        short = Unavailable(
            f"memory ran out in a step of request {seq.id!r}",
            retry_after_s=5.0,
            hint="try again later, or start with a smaller --kv-bytes, --max-batch-tokens or --max-sequences",
        )
        short.__cause__ = error
        return short
    failed = BackendFailed(
        f"the model runner failed with {type(error).__name__} while serving request {seq.id!r}",
        hint="try again; the server's log has the cause",
    )
    failed.__cause__ = error
    return failed


def deadline_failure(refusal: Refusal) -> PentadError:
    """The error for a sequence that its scheduler does not start, as it would come too late."""
    return DeadlineExceeded(
        f"request {refusal.seq.id!r} would take {refusal.expected_s:.3g} s in the present load, its "
        f"{refusal.wish} is {refusal.limit_s:.3g} s",
        hint=f"raise {refusal.wish}, lower max_tokens, or try again when there is less load",
        param=refusal.wish,
    )


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
