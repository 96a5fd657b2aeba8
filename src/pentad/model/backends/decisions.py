"""What a request left open and how it was resolved, as decisions for its usage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pentad.types import Decision, Request


def resolved(
    request: Request,
    *,
    fitted: Decision | None,
    seed: int,
    format: Decision | None,
    mended: Sequence[str],
    unchecked: Sequence[str],
    effort: Decision | None,
    at_s: float,
) -> tuple[Decision, ...]:
    """The decisions of preparing a request.

    Args:
        request: as it came.
        fitted: the answer's limit, where the request did not set it itself.
        seed: of its draws.
        format: how the model writes tool calls; None without tools.
        mended: what was mended in the chat template that presents the tools.
        unchecked: what of the tools' schemas the grammar does not enforce, a sentence per tool.
        effort: how the wished effort of reasoning was understood, where that was open.
        at_s: when this was resolved.
    """
    decide = partial(Decision, layer="model", at_s=at_s)
    sampling = request.sampling
    made = [] if fitted is None else [fitted]
    if sampling.seed is None and sampling.temperature > 0:
        made.append(decide(policy="drawn", subject="seed", chosen=str(seed)))
    made += [one for one in (format, effort) if one is not None]
    made += [
        decide(policy="mended", subject="chat_template", chosen="mended", constraint=note) for note in mended
    ]
    made += [
        decide(
            policy="lenient", subject="tool_schema", chosen="partly unchecked", constraint=note, notice=note
        )
        for note in unchecked
    ]
    return tuple(made)
