"""What a recognizer is asked, and what it tells of a sound."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioJob:
    """One sound to be recognized."""

    data: bytes
    """The file, of any format that is decoded."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """`translate`: the answer is English whatever is spoken."""
    language: str | None = None
    """ISO 639-1 code of what is spoken; None: found out."""
    prompt: str = ""
    """Text in front, for names and style; of a longer one the model reads the last 223 tokens."""
    temperature: float = 0.0
    """0: the likeliest text, with higher ones tried where that repeats itself; at most 1."""
    words: bool = False
    """Whether the times of single words are told."""
    skip_silence: bool = False
    """Whether parts without a voice are left out before anything is recognized."""


class Word(Struct, frozen=True, kw_only=True):
    """One word and when it is spoken, in seconds."""

    word: str
    start: float
    end: float


class Segment(Struct, frozen=True, kw_only=True):
    """A part of the text as the model made it, with times in seconds."""

    id: int
    seek: int
    """Where the window of 30 s begins that it was found in, in hundredths of a second."""
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float | None
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[Word] = []


class SoundInfo(Struct, frozen=True, kw_only=True):
    """What is known before the first text."""

    language: str
    """As asked, else as heard: an ISO 639-1 code."""
    duration_s: float
    prompt_tokens_cut: int = 0
    """Tokens at the beginning of the prompt that the model has no room for."""


Told: TypeAlias = SoundInfo | Segment


@runtime_checkable
class Transcriber(Protocol):
    """What recognizes sounds, one at a time."""

    def transcribe(self, job: AudioJob) -> AsyncGenerator[Told, None]:
        """One SoundInfo, then the segments as they are found. Closing the stream ends the work.

        Raises:
            InvalidRequest: the sound or what is asked of it is at fault, or it takes too much.
            Overloaded: too many wait.
            BackendFailed: the recognizer broke.
        """

    async def close(self) -> None:
        """Frees what it holds."""
