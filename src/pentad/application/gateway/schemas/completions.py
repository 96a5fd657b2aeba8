"""POST /v1/completions and the tokenizer routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.common import (
    Choices,
    Count,
    Fraction,
    LogitBias,
    Name,
    NvExtensions,
    Penalty,
    PentadOptions,
    Priority,
    RepetitionPenalty,
    Seed,
    Short,
    StopList,
    StopText,
    StreamOptions,
    StructuredOutputs,
    Temperature,
    TokenId,
    TopP,
    WireUsage,
)

IdList = Annotated[list[TokenId], Meta(min_length=1, max_length=2**20)]


class CompletionRequest(Struct, kw_only=True):
    """A completion of one or several raw prompts, as text or token ids."""

    prompt: str | Annotated[list[str | TokenId | IdList], Meta(min_length=1, max_length=2**20)]
    model: Name | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    """0 with `echo` and `logprobs` scores the prompt alone."""
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: StopText | StopList | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: Short | None = None
    # vLLM's extras
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: Annotated[Count, Meta(le=10_000_000)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None
    priority: Priority | None = None
    cache_salt: Short | None = None
    structured_outputs: StructuredOutputs | None = None
    metadata: dict[str, Any] | None = None
    nvext: NvExtensions | None = None
    pentad: PentadOptions | None = None


class LegacyLogprobs(Struct, kw_only=True):
    """Log probabilities as completions report them: parallel lists."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None for the first token of a prompt, which has nothing before it."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Characters before the token; a token that is a part of a character has that character's place."""


class CompletionChoice(Struct, kw_only=True):
    index: int
    text: str
    finish_reason: str | None
    logprobs: LegacyLogprobs | None


class CompletionAnswer(Struct, kw_only=True):
    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: WireUsage
    pentad: dict[str, Any] | UnsetType = UNSET
    object: Literal["text_completion"] = "text_completion"


class TokenizeRequest(Struct, kw_only=True):
    """Token ids of a text, as the model's tokenizer sees it."""

    prompt: Annotated[str, Meta(max_length=2**22)]
    model: Name | None = None
    add_special_tokens: bool | None = None
    """Whether the tokens that the model puts before every text come too; they do unless this is false."""


class TokenizeAnswer(Struct, kw_only=True):
    count: int
    max_model_len: int | None
    tokens: list[int]


class TokenizerInfo(Struct, kw_only=True):
    """What a program needs to format prompts itself, in the fields of tokenizer_config.json."""

    tokenizer_class: str
    model: str
    vocab_size: int
    model_max_length: int | None
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class DetokenizeRequest(Struct, kw_only=True):
    """The text of token ids."""

    tokens: Annotated[list[TokenId], Meta(max_length=2**20)]
    model: Name | None = None


class DetokenizeAnswer(Struct, kw_only=True):
    prompt: str
