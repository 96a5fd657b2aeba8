"""The error tree. Every error says what was asked, what is possible and which knob to turn.

Users meet only `PentadError` and its children; anything else that escapes is a bug of ours.
`status` is the HTTP status at the gateway; `code` is stable and safe for programs to match.
"""

from __future__ import annotations

MAX_TEXT = 2000
"""Characters of a message or hint. What was asked is echoed in them, and may be megabytes."""


def bounded(text: str, most: int = MAX_TEXT) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    if len(text) <= most:
        return text
    head, tail = most * 3 // 5, most // 5
    return f"{text[:head]} ... ({len(text) - head - tail} characters) ... {text[-tail:]}"


class PentadError(Exception):
    """Base of all errors meant for people. `str()` is one line.

    Args:
        message: what was asked and what is possible, with numbers and units.
        hint: which flag or field to change; shown after the message.
        param: the request field or flag at fault.
    """

    status = 500
    code = "internal_error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        self.message = bounded(message)
        super().__init__(self.message)
        self.hint = None if hint is None else bounded(hint)
        self.param = None if param is None else bounded(param, 200)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InvalidRequest(PentadError):
    """The request cannot be served as written; changing it is the remedy."""

    status = 400
    code = "invalid_request"
    exit_code = 2


class ContextLengthExceeded(InvalidRequest):
    """Prompt plus requested tokens do not fit the model's context; nothing was cut.

    The numbers, where they are known, let each dialect say so in the words that its clients look for.

    Args:
        prompt_tokens: of the prompt alone.
        answer_tokens: asked for beside it; 0 where the prompt alone is too long.
        context_tokens: what both have together at most.
    """

    code = "context_length_exceeded"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        prompt_tokens: int | None = None,
        answer_tokens: int = 0,
        context_tokens: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, param=param)
        self.prompt_tokens = prompt_tokens
        self.answer_tokens = answer_tokens
        self.context_tokens = context_tokens


class UnknownName(InvalidRequest):
    """A name that no table knows; the message lists the known ones."""

    code = "unknown_name"


class Incompatible(InvalidRequest):
    """Two options that cannot be combined; the owner of the rule names the way out."""

    code = "incompatible"


class Unauthorized(PentadError):
    """No key, or a wrong one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(PentadError):
    """A policy denies this, whoever asks."""

    status = 403
    code = "forbidden"


class NotFound(PentadError):
    """The resource does not exist, or not for this tenant."""

    status = 404
    code = "not_found"
    exit_code = 2


class ModelNotFound(NotFound):
    """No such model here; the message lists those that are."""

    code = "model_not_found"


class Conflict(PentadError):
    """The resource is in a state that does not allow this."""

    status = 409
    code = "conflict"


class TooLarge(PentadError):
    """A body, file or result over its limit."""

    status = 413
    code = "too_large"


class Overloaded(PentadError):
    """A bounded queue is full; try again after `retry_after_s`."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(Overloaded):
    """The service is starting, draining or has lost a part that it needs."""

    status = 503
    code = "unavailable"


class BackendFailed(PentadError):
    """A backend, local or remote, broke while serving; the request may be tried again."""

    status = 502
    code = "backend_failed"


class BadModelFile(PentadError):
    """A model file that is damaged, truncated, hostile or of a kind we refuse to read."""

    status = 400
    code = "bad_model_file"


class MissingExtra(PentadError):
    """An optional dependency is not installed; the hint is the pip command."""

    status = 501
    code = "missing_extra"


class Infeasible(PentadError):
    """No plan meets the constraints; the message names the one that binds."""

    status = 422
    code = "infeasible"
    exit_code = 3


class DeadlineExceeded(Infeasible):
    """Nothing of the answer was made before the request's deadline; trying again is no remedy."""

    code = "deadline_exceeded"


class BudgetExceeded(PentadError):
    """The next step would pass a hard limit of the run, so it was not started."""

    status = 402
    code = "budget_exceeded"


class ToolFailed(PentadError):
    """A tool raised, timed out or returned something unusable; the model may repair this."""

    status = 424
    code = "tool_failed"
