"""What the engine does not take: requests that can never be served, plans that break their promise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pentad.errors import (
    Conflict,
    ContextLengthExceeded,
    Incompatible,
    InvalidRequest,
    Overloaded,
    Unavailable,
)
from pentad.execution.adapters import check_adapter
from pentad.execution.counters import Counters
from pentad.execution.embedded import check_embedded
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits, StepPlan
from pentad.execution.sequence import Sequence as EngineSequence
from pentad.execution.sources import check_source
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.speculation.tree import MAX_NODES
from pentad.ranges import in_range
from pentad.types import Sampling

_RESERVE_BYTES: Final = 64 << 20
"""Kept free: what a step, a tokenizer and the server's own work take at once."""
_TOKEN_BYTES: Final = 256
"""Of a token outside the KV cache: lists, names of blocks, text on its way out."""
_MOST_TOKEN: Final = 2**31 - 1
_MOST_BIAS: Final = 1e6
_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "temperature": (0, 1e6),
        "top_p": (0, 1),
        "top_k": (0, _MOST_TOKEN),
        "min_p": (0, 1),
        "presence_penalty": (-100, 100),
        "frequency_penalty": (-100, 100),
        "repetition_penalty": (0.01, 10),
        "min_tokens": (0, _MOST_TOKEN),
    }
)
"""Field of Sampling to its least and greatest value: what keeps finite logits finite, with the widest room.
The gateway's are narrower."""


def max_sequence_tokens(runner: Runner) -> int:
    """The longest text, prompt and answer, that the runner's context and KV blocks can hold; of a model with
    an encoder beside one block of a source."""
    blocks = runner.num_blocks - (runner.spec.encoder is not None)
    return min(runner.spec.context_length, blocks * runner.block_size)


def max_sequence_slots(runner: Runner) -> int:
    """KV slots of the longest sequence, with what its encoder reads in front of it."""
    source = -(-runner.spec.source_length // runner.block_size) * runner.block_size
    return min(source + max_sequence_tokens(runner), runner.num_blocks * runner.block_size)


def check_requests(requests: Sequence[TokenRequest], runner: Runner, limits: EngineLimits) -> None:
    """Raises for requests that no amount of waiting would help.

    Raises:
        InvalidRequest: an empty prompt, an unknown token, no token asked, a number of the sampling out
            of range, or more choices than the queue can hold.
        ContextLengthExceeded: prompt and answer together fit neither context nor KV cache.
        Conflict: two requests bear one id.
    """
    if len(requests) > limits.max_waiting:
        raise InvalidRequest(
            f"{len(requests)} choices were asked at once, at most {limits.max_waiting} can wait",
            hint="lower n or raise --max-waiting",
            param="n",
        )
    if len({request.id for request in requests}) < len(requests):
        raise Conflict("two requests have the same id", hint="give each request its own id")
    for request in requests:
        _check_tokens(request, runner.spec.vocab_size)
        if request.source or runner.spec.encoder is not None:
            check_source(request, runner)
        if request.embedded:
            check_embedded(request, runner)
        if request.adapter:
            check_adapter(request.adapter, runner)
        _check_length(request, runner)
        check_sampling(request.sampling)


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidRequest for a number that no draw can be made with, whatever came before this door."""
    for name, (least, most) in _RANGES.items():
        in_range(name, getattr(sampling, name), least=least, most=most, hint=f"change {name}")
    for token, bias in sampling.logit_bias.items():
        if not (0 <= token <= _MOST_TOKEN and abs(bias) <= _MOST_BIAS):
            raise InvalidRequest(
                f"logit_bias has {bias!r} for token {token!r}",
                hint=f"biases are {-_MOST_BIAS:g} to {_MOST_BIAS:g}, tokens 0 to {_MOST_TOKEN}",
                param="logit_bias",
            )
    for token in sampling.stop_token_ids:
        if not 0 <= token <= _MOST_TOKEN:
            raise InvalidRequest(
                f"stop_token_ids has {token!r}",
                hint=f"token ids are 0 to {_MOST_TOKEN}",
                param="stop_token_ids",
            )


def check_queue_room(
    waiting: int, count: int, limits: EngineLimits, counters: Counters, now_s: float
) -> None:
    """Raises Overloaded, and counts it, when `count` more than those waiting would be too many."""
    if waiting + count > limits.max_waiting:
        counters.refused += count
        raise Overloaded(
            f"{waiting} requests are waiting, at most {limits.max_waiting} can",
            retry_after_s=counters.drain_s(waiting, now_s),
            hint="try again later or raise --max-waiting",
        )


def blocks_of(requests: Sequence[TokenRequest], block_size: int) -> int:
    """KV blocks that the requests need at full length, were none shared."""
    return sum(
        -(-(len(request.prompt) + request.max_tokens) // block_size) - (-len(request.source) // block_size)
        for request in requests
    )


def check_memory(free_bytes: int, requests: Sequence[TokenRequest], kv_bytes: int) -> None:
    """Raises Unavailable when what is free does not do.

    Args:
        free_bytes: memory that this process may still take.
        requests: the new ones.
        kv_bytes: of blocks that have never been in use and may come into it, for these and all others.
    """
    tokens = sum(len(request.prompt) + request.max_tokens for request in requests)
    inputs = sum(len(span.rows) for request in requests for span in request.embedded)
    needed = _RESERVE_BYTES + kv_bytes + tokens * _TOKEN_BYTES + inputs
    if free_bytes < needed:
        raise Unavailable(
            f"{free_bytes >> 20} MiB of memory are free, {needed >> 20} MiB may be needed",
            retry_after_s=5.0,
            hint="try again later, lower max_tokens, or start with a smaller --kv-bytes or a higher limit",
        )


def check_window(spec: ModelSpec) -> None:
    """Raises Incompatible for a model that trees of drafted tokens cannot be verified with."""
    if spec.encoder is not None:
        raise Incompatible(
            f"model {spec.name!r} has an encoder, beside which no tokens are drafted",
            hint="set --speculation none",
            param="speculation",
        )
    if spec.state_bytes():
        raise Incompatible(
            f"model {spec.name!r} has states, which rejected tokens cannot be taken out of",
            hint="set --speculation none",
            param="speculation",
        )
    if any(isinstance(b.mixer, Attention) and b.mixer.counts_slots for b in spec.blocks):
        raise Incompatible(
            f"model {spec.name!r} has ALiBi positions or chunks of them, where trees of drafts have no place",
            hint="set --speculation none",
            param="speculation",
        )
    if (window := spec.narrowest_window) is not None and window < MAX_NODES:
        raise Incompatible(
            f"model {spec.name!r} attends to windows of {window} tokens, speculation needs {MAX_NODES}",
            hint="set --speculation none",
            param="speculation",
        )


def _check_tokens(request: TokenRequest, vocab_size: int) -> None:
    prompt = request.prompt
    if not prompt:
        raise InvalidRequest("the prompt is empty", hint="give at least one token", param="prompt")
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        wrong = next(token for token in prompt if not 0 <= token < vocab_size)
        raise InvalidRequest(
            f"prompt token {wrong} is unknown", hint=f"token ids are 0 to {vocab_size - 1}", param="prompt"
        )
    if request.max_tokens <= len(request.generated):
        raise InvalidRequest(
            f"max_tokens is {request.max_tokens}",
            hint=f"ask for at least {len(request.generated) + 1}",
            param="max_tokens",
        )


def _check_length(request: TokenRequest, runner: Runner) -> None:
    prompt_tokens = len(request.prompt)
    total, possible = prompt_tokens + request.max_tokens, max_sequence_tokens(runner)
    if total <= possible:
        return
    asked = f"prompt of {prompt_tokens} tokens plus max_tokens {request.max_tokens} is {total} tokens"
    remedy = (
        f"lower max_tokens to at most {possible - prompt_tokens}"
        if prompt_tokens < possible
        else f"shorten the prompt to less than {possible} tokens"
    )
    context = runner.spec.context_length
    if total > context:
        raise ContextLengthExceeded(
            f"{asked}, the context of {runner.spec.name!r} is {context} tokens",
            hint=remedy,
            param="max_tokens",
        )
    needed_bytes = -(-total // runner.block_size) * runner.block_bytes
    raise ContextLengthExceeded(
        f"{asked}, the KV cache holds {possible} tokens",
        hint=f"{remedy}, or start with --kv-bytes {needed_bytes} or more",
        param="max_tokens",
    )


def check_plan(
    plan: StepPlan, name: str, sequences: Mapping[str, EngineSequence], running: int, limits: EngineLimits
) -> None:
    """Asserts what a scheduler promises, but for the blocks, which the pool asserts.

    Args:
        plan: one step's plan.
        name: whose plan it is.
        sequences: all sequences by id.
        running: how many of them run now.
        limits: what the plan must keep.
    """
    preempted = {view.id for view in plan.preempt}
    planned = {view.id for view, _ in plan.work}
    tokens = 0
    for view, count in plan.work:
        seq = sequences[view.id]
        todo = len(seq.tokens) - (seq.num_computed if seq.running else seq.num_cached)
        assert 1 <= count <= todo + seq.num_draft, f"{name} planned {count} of {todo} tokens of {view.id!r}"
        tokens += count
        running += not seq.running
    assert len(planned) == len(plan.work), f"{name} planned a sequence twice"
    assert tokens <= limits.max_batch_tokens, f"{name} planned {tokens} tokens in one step"
    for refusal in plan.refuse:
        seq = sequences[refusal.seq.id]
        assert seq.scheduled_s is None, f"{name} refuses {seq.id!r}, which has run"
        assert seq.id not in planned, f"{name} planned work for a sequence that it refuses"
    if preempted:
        assert planned.isdisjoint(preempted), f"{name} planned work for a sequence that it preempts"
        assert all(sequences[id].running for id in preempted), f"{name} preempts what does not run"
    running -= len(preempted)
    assert running <= limits.max_sequences, f"{name} planned {running} sequences at once"


def check_queues(
    running: Collection[EngineSequence],
    waiting: Collection[EngineSequence],
    sequences: Mapping[str, EngineSequence],
) -> None:
    """Asserts that every sequence is in exactly one queue and in the state that belongs to it."""
    assert all(seq.running for seq in running), "a running sequence is not marked so"
    assert not any(seq.running or seq.blocks for seq in waiting), "a waiting sequence holds blocks"
    assert {seq.id for seq in (*running, *waiting)} == sequences.keys(), "a sequence is lost or left over"
    assert len(running) + len(waiting) == len(sequences), "a sequence is in two queues"
