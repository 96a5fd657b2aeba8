"""Our errors in A2A's words."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    InvalidRequestError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from pentad.errors import Conflict, InvalidRequest, NotFound, PentadError

T = TypeVar("T")


def a2a_error(error: PentadError) -> A2AError:
    """What A2A's clients are told."""
    match error:
        case NotFound():
            return TaskNotFoundError(str(error))
        case Conflict():
            return UnsupportedOperationError(str(error))
        case InvalidRequest():
            return InvalidParamsError(str(error))
        case _ if error.status < 500:
            return InvalidRequestError(str(error))
        case _:
            return InternalError(str(error))


def translated(work: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """The coroutine function with our errors raised as A2A's."""

    @functools.wraps(work)
    async def working(*arguments: Any, **named: Any) -> T:
        try:
            return await work(*arguments, **named)
        except PentadError as error:
            raise a2a_error(error) from None

    return working
