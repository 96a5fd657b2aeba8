"""What a request left open and how it was resolved, as decisions for its usage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pentad.types import Decision, Request


def resolved(
    request: Request,
    *,
    max_tokens: int,
    seed: int,
    format: Decision | None,
    mended: Sequence[str],
    unchecked: Sequence[str],
    at_s: float,
) -> tuple[Decision, ...]:
    """The decisions of preparing a request.

    Args:
        request: as it came.
        max_tokens: the answer's limit.
        seed: of its draws.
        format: how the model writes tool calls; None without tools.
        mended: what was mended in the chat template that presents the tools.
        unchecked: what of the tools' schemas the grammar does not enforce, a sentence per tool.
        at_s: when this was resolved.
    """
    decide = partial(Decision, layer="model", at_s=at_s)
    sampling = request.sampling
    made: list[Decision] = []
    if sampling.max_tokens is None:
        policy, chosen, bound = "rest_of_context", str(max_tokens), "context_length"
        made.append(decide(policy=policy, subject="max_tokens", chosen=chosen, constraint=bound))
    if sampling.seed is None and sampling.temperature > 0:
        made.append(decide(policy="drawn", subject="seed", chosen=str(seed)))
    if format is not None:
        made.append(format)
    for policy, subject, notes in (
        ("mended", "chat_template", mended),
        ("lenient", "tool_schema", unchecked),
    ):
        chosen = "mended" if policy == "mended" else "partly unchecked"
        made += [decide(policy=policy, subject=subject, chosen=chosen, constraint=note) for note in notes]
    return tuple(made)
