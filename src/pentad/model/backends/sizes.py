"""What a request cannot fit, told by its characters: before anything is rendered or tokenized."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pentad.errors import ContextLengthExceeded
from pentad.types import Request

PATIENCE = 2
"""A prompt is tokenized up to so many contexts, so that an error can name its size."""


def prompt_chars(request: Request) -> int:
    """Characters of everything that the request shows to the model; parts that are no text count none."""
    chars = len(request.text or "") + len(request.token_ids or ())
    for message in request.messages or ():
        chars += len(message.content)
        chars += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    for tool in request.tools:
        chars += len(tool.description) + sum(map(len, _texts(tool.parameters)))
    return chars


def refuse_by_size(request: Request, *, token_chars: int, context_length: int, model: str) -> None:
    """Raises ContextLengthExceeded when prompt or prediction hold more than all tokens that fit can spell.

    Args:
        token_chars: characters that one token stands for at most.
    """
    prompt = "prompt" if request.messages is None else "messages"
    for param, chars in ((prompt, prompt_chars(request)), ("prediction", len(request.prediction))):
        tokens = math.ceil(chars / token_chars)
        if tokens > context_length:
            raise ContextLengthExceeded(
                f"the {param} of {chars} characters has at least {tokens} tokens, "
                f"the context of {model!r} is {context_length}",
                hint="shorten it, or split the work over several requests",
                param=param,
                prompt_tokens=tokens,
                context_tokens=context_length,
            )


def refuse_if_cut(tokens: int, *, param: str, context_length: int, model: str) -> None:
    """Raises ContextLengthExceeded when tokenizing has stopped at `PATIENCE` contexts."""
    if tokens > PATIENCE * context_length:
        raise ContextLengthExceeded(
            f"the {param} has more than {PATIENCE * context_length} tokens, "
            f"the context of {model!r} is {context_length}",
            hint="shorten it to less than half, or split the work over several requests",
            param=param,
            prompt_tokens=tokens,
            context_tokens=context_length,
        )


def _texts(schema: Any) -> Iterator[str]:
    """The strings in a JSON value; iterative, since depth may be chosen by a stranger."""
    left = [schema]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            left.extend(item.keys())
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
