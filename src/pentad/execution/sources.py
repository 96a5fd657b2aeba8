"""What an engine takes of sources: texts that an encoder reads, and the decoder's answers stand upon."""

from __future__ import annotations

from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner


def check_source(request: TokenRequest, runner: Runner) -> None:
    """Raises for what the encoder of this runner's model does not read.

    Raises:
        Incompatible: the model has no encoder, or takes a part of the request in no form.
        InvalidRequest: no source, or one with unknown tokens.
        ContextLengthExceeded: a source longer than the encoder reads, or than the KV cache holds with the
            answer.
    """
    spec, source = runner.spec, request.source
    if spec.encoder is None:
        raise Incompatible(
            f"model {spec.name!r} has no encoder that could read a source", hint="give the text as prompt"
        )
    if not source:
        raise InvalidRequest(
            f"model {spec.name!r} reads a source with its encoder, and none is given",
            hint="give at least one token",
            param="prompt",
        )
    if min(source) < 0 or max(source) >= spec.vocab_size:
        wrong = next(token for token in source if not 0 <= token < spec.vocab_size)
        raise InvalidRequest(
            f"source token {wrong} is unknown",
            hint=f"token ids are 0 to {spec.vocab_size - 1}",
            param="prompt",
        )
    if request.sampling.prompt_logprobs is not None:
        raise Incompatible(
            f"model {spec.name!r} reads the prompt with its encoder, which gives tokens no probabilities",
            hint="leave echo out, or ask for no logprobs",
            param="logprobs",
        )
    if request.embedded:
        raise Incompatible(
            f"model {spec.name!r} reads text with its encoder, nothing else",
            hint="send text only",
            param="messages",
        )
    check_source_length(len(source), spec.source_length, spec.name)
    size, total = runner.block_size, len(request.prompt) + request.max_tokens
    needed = -(-len(source) // size) + -(-total // size)
    if needed > runner.num_blocks:
        raise ContextLengthExceeded(
            f"a source of {len(source)} tokens and {total} of the answer take {needed} blocks, the KV cache "
            f"has {runner.num_blocks}",
            hint=f"shorten one of them, or start with --kv-bytes {needed * runner.block_bytes} or more",
            param="max_tokens",
        )


def check_source_length(tokens: int, most: int, model: str, *, param: str = "prompt") -> None:
    """Raises ContextLengthExceeded for more than an encoder reads."""
    if tokens > most:
        raise ContextLengthExceeded(
            f"the source has {tokens} tokens, the encoder of {model!r} reads {most}",
            hint=f"shorten it by at least {tokens - most} tokens, or split the work over several requests",
            param=param,
            prompt_tokens=tokens,
            context_tokens=most,
        )
