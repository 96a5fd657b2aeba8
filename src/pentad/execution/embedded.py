"""What an engine takes of inputs that are no tokens."""

from __future__ import annotations

import numpy as np

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner, takes_embeddings


def check_embedded(request: TokenRequest, runner: Runner) -> None:
    """Raises for spans of the prompt that this runner can't compute.

    Raises:
        Incompatible: the runner takes tokens only, or the prompt is to be scored.
        InvalidRequest: rows of another width than the model's, spans that overlap or leave the prompt, or
            numbers that are not finite.
    """
    spec = runner.spec
    if not takes_embeddings(runner):
        raise Incompatible(
            f"the runner of model {spec.name!r} takes tokens only, no input embeddings",
            hint="choose --kernels native or torch",
            param="messages",
        )
    if request.sampling.prompt_logprobs is not None:
        raise Incompatible(
            "a prompt with parts that are no text has no log probabilities",
            hint="leave echo out, or send text only",
            param="logprobs",
        )
    end = 0
    for span in request.embedded:
        if span.width != spec.width:
            raise InvalidRequest(
                f"input embeddings of {span.width} numbers; model {spec.name!r} has {spec.width}",
                hint="use the encoder that belongs to the model",
                param="messages",
            )
        if span.start < end or span.end > len(request.prompt):
            raise InvalidRequest(
                f"input embeddings at {span.start} to {span.end} of a prompt of {len(request.prompt)} tokens",
                hint="put them in order, apart and inside the prompt",
                param="messages",
            )
        if not np.isfinite(span.matrix()).all():
            raise InvalidRequest(
                f"input embeddings at {span.start} hold numbers that are not finite",
                hint="check the part that they were made of",
                param="messages",
            )
        end = span.end
