"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import Exchange, exchange_of
from pentad.application.gateway.forms import Form, read_form
from pentad.application.gateway.translate.transcripts import FORMATS, answer, events, whole
from pentad.errors import Incompatible, InvalidRequest, ModelNotFound
from pentad.model.audio.transcript import AudioJob, SoundInfo, Told, Transcriber

GRANULARITIES: Final = ("segment", "word")
_GRANULARITY_FIELDS: Final = ("timestamp_granularities", "timestamp_granularities[]")
_FIELDS: Final = "model prompt response_format temperature language stream chunking_strategy"
_READ: Final = frozenset((*_FIELDS.split(), *_GRANULARITY_FIELDS))
Task = Literal["transcribe", "translate"]


def routes(gateway: Gateway) -> list[Route]:
    """Sounds to text in their own language, or in English."""

    async def serve(http: HttpRequest, task: Task) -> Response:
        exchange = exchange_of(http)
        form = await read_form(http, gateway.settings)
        exchange.ignored.extend(sorted({name for name, _ in form.fields} - _READ))
        exchange.model, transcriber = _named(gateway, form.field("model"))
        shape = _one_of(form, "response_format", FORMATS, "json")
        granularities = _granularities(form, shape)
        job = AudioJob(
            data=form.data,
            task=task,
            language=form.field("language").strip().lower() or None if task == "transcribe" else None,
            prompt=form.field("prompt"),
            temperature=_temperature(form),
            words="word" in granularities,
            skip_silence=bool(form.field("chunking_strategy")),
        )
        told = _noticed(transcriber.transcribe(job), exchange)
        if _one_of(form, "stream", ("true", "false"), "false") == "true":
            if shape not in ("json", "text"):
                raise InvalidRequest(
                    f"response_format {shape!r} cannot be streamed: events hold text",
                    hint="leave stream out, or ask for json",
                    param="stream",
                )
            return gateway.events(events(told), exchange)
        return answer(await gateway.plain(http, whole(told)), shape, task, granularities)

    async def transcriptions(http: HttpRequest) -> Response:
        return await serve(http, "transcribe")

    async def translations(http: HttpRequest) -> Response:
        return await serve(http, "translate")

    return [
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/audio/translations", translations, methods=["POST"]),
    ]


def _named(gateway: Gateway, name: str) -> tuple[str, Transcriber]:
    """The model's own name and what it is; the one that is served where none is named."""
    served = gateway.services.transcribers
    if not served:
        raise ModelNotFound(
            "no model for sounds is served here",
            hint="pip install 'pentad[audio]' and serve one: --transcription-model FOLDER",
            param="model",
        )
    name = name or next(iter(served))
    if name not in served:
        raise ModelNotFound(
            f"no model {name[:100]!r} for sounds here",
            hint=f"set `model` to one of: {', '.join(served)}",
            param="model",
        )
    return name, served[name]


def _one_of(form: Form, name: str, known: tuple[str, ...], default: str) -> str:
    value = form.field(name, default).strip().lower()
    if value not in known:
        raise InvalidRequest(
            f"{name} is {value[:40]!r}", hint=f"set it to one of: {', '.join(known)}", param=name
        )
    return value


def _granularities(form: Form, shape: str) -> list[str]:
    """What has times; of one form of answer alone. Raises InvalidRequest, Incompatible."""
    asked = form.every(*_GRANULARITY_FIELDS)
    for value in asked:
        if value not in GRANULARITIES:
            raise InvalidRequest(
                f"timestamp_granularities has {value[:40]!r}",
                hint=f"it may hold: {', '.join(GRANULARITIES)}",
                param="timestamp_granularities",
            )
    if asked and shape != "verbose_json":
        raise Incompatible(
            f"times are told in verbose_json, and response_format is {shape!r}",
            hint="set response_format to verbose_json",
            param="timestamp_granularities",
        )
    return asked or ["segment"]


def _temperature(form: Form) -> float:
    text = form.field("temperature", "0").strip()
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidRequest(
            f"temperature is {text[:40]!r}", hint="set it to a number from 0 to 1", param="temperature"
        )
    return value


async def _noticed(told: AsyncGenerator[Told, None], exchange: Exchange) -> AsyncGenerator[Told, None]:
    """The same; what is left out of a prompt goes to the answer's header."""
    async with aclosing(told) as stream:
        async for one in stream:
            if isinstance(one, SoundInfo) and one.prompt_tokens_cut:
                exchange.notices.append(
                    f"the model reads the end of the prompt; {one.prompt_tokens_cut} tokens are left out"
                )
            yield one
