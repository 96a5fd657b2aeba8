"""What POST /v1/audio/transcriptions and /v1/audio/translations answer, as OpenAI's clients know it."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from pentad.model.audio.transcript import Word


class DurationUsage(Struct, kw_only=True):
    """Sounds are counted by their length."""

    seconds: int
    """Begun ones count."""
    type: Literal["duration"] = "duration"


class Transcription(Struct, kw_only=True):
    text: str
    usage: DurationUsage


class TranscriptionSegment(Struct, kw_only=True):
    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscription(Struct, kw_only=True):
    task: Literal["transcribe", "translate"]
    language: str
    """ISO 639-1 code of what is spoken."""
    duration: float
    text: str
    usage: DurationUsage
    segments: list[TranscriptionSegment] | UnsetType = UNSET
    words: list[Word] | UnsetType = UNSET


class TextDelta(Struct, kw_only=True):
    delta: str
    type: Literal["transcript.text.delta"] = "transcript.text.delta"


class TextDone(Struct, kw_only=True):
    text: str
    usage: DurationUsage
    type: Literal["transcript.text.done"] = "transcript.text.done"
