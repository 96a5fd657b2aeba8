"""ScriptedTranscriber: tells the same of every sound, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from pentad.model.audio.transcript import AudioJob, Segment, SoundInfo, Told, Word


def segment(id: int, text: str, *, start: float, end: float) -> Segment:
    """A part of a text whose words take equally long."""
    words = text.split()
    each = (end - start) / max(1, len(words))
    return Segment(
        id=id,
        seek=0,
        start=start,
        end=end,
        text=text,
        tokens=[100 + id],
        temperature=0.0,
        avg_logprob=-0.25,
        compression_ratio=1.5,
        no_speech_prob=0.01,
        words=[
            Word(word=word, start=round(start + i * each, 3), end=round(start + (i + 1) * each, 3))
            for i, word in enumerate(words)
        ],
    )


class ScriptedTranscriber:
    """See `Transcriber`; the jobs stand in `jobs`, how many streams were closed early in `cut`.

    Args:
        segments: of every sound.
        pause_s: in front of each.
    """

    def __init__(self, segments: Sequence[Segment], *, info: SoundInfo, pause_s: float = 0.0) -> None:
        self.jobs: list[AudioJob] = []
        self.cut = 0
        self._segments, self._info, self._pause_s = segments, info, pause_s

    async def transcribe(self, job: AudioJob) -> AsyncGenerator[Told, None]:
        """See `Transcriber.transcribe`."""
        self.jobs.append(job)
        whole = False
        try:
            yield self._info
            for one in self._segments:
                await asyncio.sleep(self._pause_s)
                yield one
            whole = True
        finally:
            self.cut += not whole

    async def close(self) -> None:
        """Nothing is held."""
