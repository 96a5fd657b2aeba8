"""SourceForm: how a model with an encoder is given a text, and how its decoder begins to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pentad.errors import InvalidRequest
from pentad.execution.spec import ModelSpec
from pentad.model.files.fields import Fields
from pentad.types import Decision, Message, Request, Sampling

_NEVER: Final = -1e6
"""Bias of a token that is never drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceForm:
    """What the decoder starts from, and what it never says."""

    start: tuple[int, ...]
    """Tokens that stand in front of every answer: the first, and one that some models are made to begin
    with, as of a language."""
    banned: tuple[int, ...] = ()
    """Tokens that its makers exclude from answers, as Marian's padding."""

    def sampling(self, sampling: Sampling) -> Sampling:
        """The same without the banned tokens."""
        if not self.banned:
            return sampling
        bias = dict.fromkeys(self.banned, _NEVER)
        return replace(sampling, logit_bias={**sampling.logit_bias, **bias})


def from_folder(spec: ModelSpec, config: Fields, generation: Fields) -> SourceForm | None:
    """What `generation_config.json` says, else `config.json`; None for a model without an encoder.

    Raises BadModelFile for a token that the vocabulary has not.
    """
    if spec.encoder is None:
        return None

    def token(*keys: str) -> int | None:
        for key in keys:
            for fields in (generation, config):
                if fields.values.get(key) is not None:
                    return _known(fields, key, fields.values[key], spec.vocab_size)
        return None

    start = token("decoder_start_token_id", "bos_token_id", "pad_token_id")
    if start is None:
        config.fail("decoder_start_token_id", "is missing, which a model with an encoder needs")
    forced = token("forced_bos_token_id")
    lists = generation.values.get("bad_words_ids") or config.values.get("bad_words_ids") or []
    singles = [words[0] for words in lists if isinstance(words, list) and len(words) == 1]
    return SourceForm(
        start=(start,) if forced is None else (start, forced),
        banned=tuple(_known(generation, "bad_words_ids", id, spec.vocab_size) for id in singles),
    )


def from_gguf(spec: ModelSpec, fields: Fields) -> SourceForm | None:
    """What GGUF metadata without their architecture's prefix say; None for a model without an encoder."""
    if spec.encoder is None:
        return None
    start = fields.integer("decoder_start_token_id", 0, high=spec.vocab_size - 1)
    return SourceForm(start=(start,))


def source_message(messages: Sequence[Message], model: str, *, tools: bool) -> Message:
    """The message that a model without a chat template reads: the user's last.

    Raises InvalidRequest for what has no place in it: tools, and a conversation that ends otherwise.
    """
    if tools:
        raise InvalidRequest(
            f"model {model!r} reads one text with its encoder and has no chat template that could show tools",
            hint="leave tools out, or use a model with a chat template",
            param="tools",
        )
    if not messages or messages[-1].role != "user":
        raise InvalidRequest(
            f"model {model!r} reads the user's last message, and the conversation does not end with one",
            hint="end with a message of role user",
            param="messages",
        )
    if messages[-1].media:
        raise InvalidRequest(
            f"model {model!r} reads text with its encoder, nothing else", hint="send text", param="messages"
        )
    return messages[-1]


def left_out(request: Request, *, at_s: float) -> tuple[Decision, ...]:
    """That messages in front of the user's last are not read, where there are any."""
    others = len(request.messages or ()) - 1
    if others < 1:
        return ()
    notice = f"the model reads the last message alone; {others} in front of it are left out"
    return (
        Decision(
            layer="model",
            policy="last_user_message",
            subject="source",
            chosen=f"messages[{others}]",
            constraint="chat_template",
            at_s=at_s,
            notice=notice,
        ),
    )


def _known(fields: Fields, key: str, value: Any, size: int) -> int:
    if type(value) is not int or not 0 <= value < size:
        fields.fail(key, f"must be a token id from 0 to {size - 1}")
    return value
