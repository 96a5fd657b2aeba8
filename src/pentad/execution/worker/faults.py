"""Errors as they travel between processes: by the name of their class, never as code."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import msgspec

from pentad import errors
from pentad.errors import BackendFailed, ContextLengthExceeded, Overloaded, PentadError

_KINDS: Final = MappingProxyType(
    {
        kind.__name__: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, PentadError)
    }
)


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """One PentadError."""

    kind: str
    message: str
    hint: str | None = None
    param: str | None = None
    retry_after_s: float = 1.0
    prompt_tokens: int | None = None
    answer_tokens: int = 0
    context_tokens: int | None = None


def fault_of(error: BaseException) -> Fault:
    """The error as it travels; of one that is not ours only the kind is told, the log has the rest."""
    if not isinstance(error, PentadError):
        return Fault("BackendFailed", f"the engine's process failed with {type(error).__name__}")
    kind = next(k.__name__ for k in type(error).__mro__ if k.__name__ in _KINDS)
    fault = Fault(kind, error.message, error.hint, error.param)
    if isinstance(error, Overloaded):
        fault = msgspec.structs.replace(fault, retry_after_s=error.retry_after_s)
    if isinstance(error, ContextLengthExceeded):
        fault = msgspec.structs.replace(
            fault,
            prompt_tokens=error.prompt_tokens,
            answer_tokens=error.answer_tokens,
            context_tokens=error.context_tokens,
        )
    return fault


def error_of(fault: Fault) -> PentadError:
    """The error that travelled; a kind that this release does not know is a BackendFailed."""
    kind = _KINDS.get(fault.kind, BackendFailed)
    if issubclass(kind, Overloaded):
        return kind(fault.message, hint=fault.hint, retry_after_s=fault.retry_after_s)
    if issubclass(kind, ContextLengthExceeded):
        return kind(
            fault.message,
            hint=fault.hint,
            param=fault.param,
            prompt_tokens=fault.prompt_tokens,
            answer_tokens=fault.answer_tokens,
            context_tokens=fault.context_tokens,
        )
    return kind(fault.message, hint=fault.hint, param=fault.param)
