"""Fields that several dialects spell alike, as Sampling; checked across fields here."""

from __future__ import annotations

from typing import Any, Protocol

from pentad.errors import InvalidRequest
from pentad.model.sampling_defaults import OPEN
from pentad.types import Sampling

_SEED_MASK = 2**63 - 1


class SamplingFields(Protocol):
    """What chat and completion requests share."""

    @property
    def temperature(self) -> float | None: ...
    @property
    def top_p(self) -> float | None: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def min_p(self) -> float | None: ...
    @property
    def presence_penalty(self) -> float | None: ...
    @property
    def frequency_penalty(self) -> float | None: ...
    @property
    def repetition_penalty(self) -> float | None: ...
    @property
    def logit_bias(self) -> dict[str, float] | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def n(self) -> int | None: ...
    @property
    def min_tokens(self) -> int | None: ...
    @property
    def stop(self) -> str | list[str] | None: ...
    @property
    def stop_token_ids(self) -> list[int] | None: ...
    @property
    def ignore_eos(self) -> bool | None: ...


def sampling(body: SamplingFields, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """How tokens are drawn, with OpenAI's defaults. Raises InvalidRequest naming the field."""
    if max_tokens is not None and (body.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"min_tokens is {body.min_tokens}, above max_tokens {max_tokens}", param="min_tokens"
        )
    return Sampling(
        **drawing(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
        ),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=logit_bias(body.logit_bias),
        seed=None if body.seed is None else body.seed & _SEED_MASK,
        n=body.n or 1,
        max_tokens=max_tokens,
        fit_max_tokens=True,
        min_tokens=body.min_tokens or 0,
        stop=stops(body.stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
    )


def given(value: Any, default: Any) -> Any:
    """The value unless it is absent; 0 is a value."""
    return default if value is None else value


def drawing(
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> dict[str, Any]:
    """The fields of Sampling that a model may have defaults for; those not sent are left open to it.

    A nucleus of no mass holds the most probable token, so it is a top_k of 1.
    """
    if top_p == 0:
        top_p, top_k = 1.0, 1
    sent = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": None if top_k is None else max(0, top_k),
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    fields: dict[str, Any] = {name: value for name, value in sent.items() if value is not None}
    return {**fields, "left_open": OPEN - fields.keys()}


def stops(value: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings; an empty one, as some forms send it, stops nothing."""
    listed = (value,) if isinstance(value, str) else value or ()
    return tuple(stop for stop in listed if stop)


def logit_bias(wire: dict[str, float] | None) -> dict[int, float]:
    """Token ids, which JSON can only write as strings, to their bias."""
    bias: dict[int, float] = {}
    for key, value in (wire or {}).items():
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise InvalidRequest(
                f'logit_bias has the key {key[:32]!r}; keys are token ids, e.g. "50"', param="logit_bias"
            )
        bias[int(key)] = value
    return bias
