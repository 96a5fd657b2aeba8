"""The process in which foreign sound is decoded and recognized: it may be killed, the server may not.

Run as a script, with nothing of the package imported. Reads jobs, each one line of JSON and the bytes of a
sound file, which its key `payload` counts: `{"task": "transcribe", "language": null, "prompt": "",
"temperature": 0.0, "words": false, "quiet": false, "payload": 9}`. Answers lines of JSON: `{"info": {...}}`,
one `{"segment": {...}}` after the other as they are recognized, and `{"done": true}`; or `{"error": "..."}`.
A first line tells that the model is loaded, `{"ready": true}`, or why it is not.

Arguments: the model's folder, CPU threads, bytes that the process may take on top of what it has with the
model loaded, and seconds of sound.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

FORMATS = "wav,mp3,flac,ogg,aac,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,caf,aiff,au,amr"
"""Containers that are read; of those that name other files, as playlists do, none."""
RATE = 16_000
SHORTEST_S = 0.1
LESS_SURE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures that are tried one after the other while an answer repeats itself or is unlikely."""


def decoded(data: bytes, most_s: float) -> Any:
    """Samples [T] of the first sound stream, one channel, 16 kHz. Raises ValueError."""
    import av
    import numpy as np

    parts: list[Any] = []
    count = 0
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(data), mode="r", options=options, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise ValueError("it holds no sound")
            resampler = av.audio.resampler.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in _frames(container):
                for made in resampler.resample(frame):
                    parts.append(made.to_ndarray().reshape(-1))
                    count += parts[-1].size
                    if count > most_s * RATE:
                        raise ValueError(f"it is longer than {most_s:g} s; send it in parts")
    except av.error.FFmpegError as error:
        raise ValueError(f"it cannot be decoded: {error.strerror or error}") from None
    if count < SHORTEST_S * RATE:
        raise ValueError(f"it holds {count / RATE:.3f} s of sound, at least {SHORTEST_S} s are needed")
    return np.concatenate(parts).astype(np.float32) / 32768.0


def _frames(container: Any) -> Iterator[Any]:
    """Frames that can be decoded, and at the end None for the resampler; broken ones are left out."""
    import av

    frames = container.decode(audio=0)
    broken = 0
    while True:
        try:
            yield next(frames)
        except StopIteration:
            break
        except av.error.InvalidDataError:
            broken += 1
            if broken > 100:
                raise
    yield None


def answers(model: Any, job: dict[str, Any], data: bytes, most_s: float) -> Iterator[dict[str, Any]]:
    """What is told of one job."""
    if job["task"] == "translate" and not model.model.is_multilingual:
        raise ValueError("the model knows English alone and does not translate")
    language, known = job["language"], model.supported_languages
    if language is not None and language not in known:
        raise ValueError(
            f"the model does not know the language {language!r:.20}; it knows {', '.join(known)}"
        )
    samples = decoded(data, most_s)
    prompt = job["prompt"].strip()
    tokens = len(model.hf_tokenizer.encode(f" {prompt}", add_special_tokens=False).ids) if prompt else 0
    segments, info = model.transcribe(
        samples,
        task=job["task"],
        language=language,
        initial_prompt=prompt or None,
        temperature=list(LESS_SURE) if job["temperature"] == 0 else job["temperature"],
        word_timestamps=job["words"],
        vad_filter=job["quiet"],
    )
    yield {
        "info": {
            "language": info.language,
            "duration_s": samples.size / RATE,
            "prompt_tokens_cut": max(0, tokens - (model.max_length // 2 - 1)),
        }
    }
    for segment in segments:
        yield {"segment": _told(segment)}


def _told(segment: Any) -> dict[str, Any]:
    return {
        "id": segment.id - 1,
        "seek": segment.seek,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
        "words": [
            {
                "word": word.word.strip(),
                "start": round(float(word.start), 3),
                "end": round(float(word.end), 3),
            }
            for word in segment.words or ()
        ],
    }


def serve(model: Any, source: BinaryIO, sink: BinaryIO, most_s: float) -> None:
    """Answers jobs until the source ends."""

    def tell(line: dict[str, Any]) -> None:
        sink.write(json.dumps(line).encode() + b"\n")
        sink.flush()

    tell({"ready": True})
    for line in source:
        job = json.loads(line)
        data = source.read(job["payload"])
        try:
            for answer in answers(model, job, data, most_s):
                tell(answer)
        except (ValueError, RuntimeError, MemoryError) as error:
            tell({"error": " ".join(str(error).split())[:500] or type(error).__name__})
        else:
            tell({"done": True})


def main() -> None:
    """Loads the model, sets the limits, then serves."""
    folder, threads, memory_bytes, most_s = sys.argv[1:5]
    # Read when the libraries are imported: they must not start more threads, nor look for a model elsewhere.
    os.environ |= {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        from faster_whisper import WhisperModel

        model = WhisperModel(folder, device="cpu", cpu_threads=int(threads), local_files_only=True)
    except Exception as error:  # whatever the libraries raise for a folder that is none
        text = " ".join(str(error).split())[:500] or type(error).__name__
        sink.write(json.dumps({"error": text}).encode() + b"\n")
        sink.flush()
        return
    with open("/proc/self/statm", "rb") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + int(memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    serve(model, sys.stdin.buffer, sink, float(most_s))


if __name__ == "__main__":
    main()
