"""Room: how many tokens an answer may have behind its prompt."""

from __future__ import annotations

from pentad.errors import ContextLengthExceeded
from pentad.types import Decision, Request

MIN_FITTED_TOKENS = 256
"""With less room than this a longer answer is refused rather than fitted: it would be no answer."""


def answer_room(
    request: Request, prompt_tokens: int, *, context: int, model: str, at_s: float
) -> tuple[int, Decision | None]:
    """The answer's limit, and the decision where the request did not set it itself.

    The prompt is never cut. What is asked beyond the context is lowered to what fits where the
    request allows that, since many programs always ask for as much as a large model would give.

    Args:
        request: with `sampling.max_tokens` as asked.
        prompt_tokens: of its prompt.
        context: tokens that prompt and answer may have together.
        model: its name, for errors.
        at_s: instant of the decision.

    Raises:
        ContextLengthExceeded: no room for what was asked.
    """
    asked = request.sampling.max_tokens
    if prompt_tokens >= context:
        raise ContextLengthExceeded(
            f"the prompt has {prompt_tokens} tokens, the context of {model!r} is {context}",
            hint=f"shorten it by at least {prompt_tokens - context + 1} tokens",
            param="messages" if request.messages is not None else "prompt",
            prompt_tokens=prompt_tokens,
            context_tokens=context,
        )
    room = context - prompt_tokens
    if asked is None:
        return room, _decision("rest_of_context", room, None, at_s)
    if asked <= room:
        return asked, None
    if request.sampling.fit_max_tokens and room >= MIN_FITTED_TOKENS:
        notice = (
            f"max_tokens lowered from {asked} to {room}: the context of {model!r} is {context} tokens, "
            f"{prompt_tokens} of them the prompt's"
        )
        return room, _decision("fitted", room, asked, at_s, notice)
    raise ContextLengthExceeded(
        f"the prompt has {prompt_tokens} tokens and max_tokens is {asked}, together "
        f"{prompt_tokens + asked}; the context of {model!r} is {context}",
        hint=f"shorten the prompt by {asked - room} tokens or lower max_tokens to at most {room}",
        param="max_tokens",
        prompt_tokens=prompt_tokens,
        answer_tokens=asked,
        context_tokens=context,
    )


def _decision(
    policy: str, chosen: int, asked: int | None, at_s: float, notice: str | None = None
) -> Decision:
    return Decision(
        layer="model",
        policy=policy,
        subject="max_tokens",
        chosen=str(chosen),
        candidates=() if asked is None else ((str(asked), None),),
        constraint="context_length",
        at_s=at_s,
        notice=notice,
    )
