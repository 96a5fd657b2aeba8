"""Recognized sounds in the forms that OpenAI's API answers with: JSON, text, subtitles, events."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from starlette.responses import Response

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.schemas.audio import (
    DurationUsage,
    TextDelta,
    TextDone,
    Transcription,
    TranscriptionSegment,
    VerboseTranscription,
)
from pentad.model.audio.transcript import Segment, SoundInfo, Told

FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A whole sound as text."""

    info: SoundInfo
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def usage(self) -> DurationUsage:
        return DurationUsage(seconds=math.ceil(self.info.duration_s))


async def whole(told: AsyncGenerator[Told, None]) -> Transcript:
    """The fold of what is told."""
    info, segments = None, []
    async with aclosing(told) as stream:
        async for one in stream:
            if isinstance(one, SoundInfo):
                info = one
            else:
                segments.append(one)
    assert info is not None, "it comes first"
    return Transcript(info=info, segments=segments)


def answer(
    made: Transcript, form: str, task: Literal["transcribe", "translate"], granularities: Collection[str]
) -> Response:
    """The answer in one piece; `granularities` (segment, word) are of verbose_json."""
    match form:
        case "text":
            return Response(made.text + "\n", media_type="text/plain")
        case "srt":
            return Response(subtitles(made.segments, ","), media_type="text/plain")
        case "vtt":
            return Response("WEBVTT\n\n" + subtitles(made.segments, "."), media_type="text/plain")
        case "verbose_json":
            return json_response(_verbose(made, task, granularities))
    return json_response(Transcription(text=made.text, usage=made.usage))


def _verbose(
    made: Transcript, task: Literal["transcribe", "translate"], granularities: Collection[str]
) -> VerboseTranscription:
    found = VerboseTranscription(
        task=task,
        language=made.info.language,
        duration=round(made.info.duration_s, 3),
        text=made.text,
        usage=made.usage,
    )
    if "segment" in granularities:
        fields = TranscriptionSegment.__struct_fields__
        found.segments = [
            TranscriptionSegment(
                **{name: getattr(one, name) for name in fields} | {"temperature": one.temperature or 0.0}
            )
            for one in made.segments
        ]
    if "word" in granularities:
        found.words = [word for segment in made.segments for word in segment.words]
    return found


def subtitles(segments: Sequence[Segment], point: Literal[",", "."]) -> str:
    """Numbered cues as SubRip has them; WebVTT has a point in front of the thousandths, and no numbers."""
    cues = []
    for number, segment in enumerate(segments, 1):
        # Three hyphens and a greater-than sign would end a cue's times, and an empty line the cue.
        text = " ".join(segment.text.replace("-->", "->").split())
        times = f"{stamp(segment.start, point)} --> {stamp(segment.end, point)}"
        cues.append("\n".join([*([str(number)] if point == "," else []), times, text]) + "\n\n")
    return "".join(cues)


def stamp(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and thousandths: 00:01:02,500."""
    thousandths = round(max(seconds, 0.0) * 1000)
    whole_s, rest = divmod(thousandths, 1000)
    return f"{whole_s // 3600:02}:{whole_s // 60 % 60:02}:{whole_s % 60:02}{point}{rest:03}"


async def events(told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
    """Deltas of the text as it is recognized, and all of it at the end: they join to the same."""
    info: SoundInfo | None = None
    segments: list[Segment] = []
    async with aclosing(told) as stream:
        async for one in stream:
            if isinstance(one, SoundInfo):
                info = one
                continue
            text = one.text if segments else one.text.lstrip()
            segments.append(one)
            yield _event(TextDelta(delta=text))
    assert info is not None, "it comes first"
    made = Transcript(info=info, segments=segments)
    yield _event(TextDone(text=made.text, usage=made.usage))


def _event(value: TextDelta | TextDone) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
