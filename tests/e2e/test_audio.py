"""A real Whisper model over HTTP: formats, limits and what is refused, with OpenAI's own client.

Where espeak-ng is installed the words of synthesized speech are checked as well.
"""

from __future__ import annotations

import asyncio
import io
import math
import pathlib
import re
import shutil
import subprocess
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from model_fixtures import tiny_llama_gguf
from pentad.application.config import EngineSettings, Settings
from pentad.application.gateway import GatewaySettings
from pentad.errors import InvalidRequest
from pentad.model.audio.transcript import AudioJob
from pentad.model.audio.whisper import AudioLimits, WhisperTranscriber
from pool_support import Serving, serving

av = pytest.importorskip("av", reason="the extra audio is not installed: pip install 'pentad[audio]'")
pytest.importorskip("faster_whisper")
SAID = "The quick brown fox jumps over the lazy dog. It was a bright cold day in April."
CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac", "ogg": "libopus"}
"""Of each container."""


@pytest.fixture(scope="module")
def server(whisper_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.gguf").write_bytes(tiny_llama_gguf())
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        models=(str(folder / "tiny.gguf"),),
        embedding_model=None,
        transcription_model=whisper_path,
        engine=EngineSettings(kv_bytes=8 << 20, threads=2),
        server=GatewaySettings(port=0),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=1200) as opened:
        yield opened


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    times = np.arange(int(seconds * 16_000)) / 16_000
    return (np.sin(2 * math.pi * hertz * times) * 12_000).astype("<i2")


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def encoded(samples: np.ndarray, container: str, codec: str) -> bytes:
    """The samples in another format."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=16_000, frame_size=stream.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()


def ask(client: openai.OpenAI, data: bytes, name: str = "a.wav", **fields: Any) -> Any:
    return client.audio.transcriptions.create(model="whisper-base", file=(name, data), **fields)


@pytest.mark.parametrize("container", CODECS)
def test_each_format_is_decoded_to_its_length(container: str, client: openai.OpenAI) -> None:
    data = wav(tone(2.0)) if container == "wav" else encoded(tone(2.0), container, CODECS[container])
    answer = ask(client, data, f"a.{container}", response_format="verbose_json", language="en")
    assert answer.duration == pytest.approx(2.0, abs=0.15)
    assert (answer.task, answer.language) == ("transcribe", "en")


def test_what_is_no_sound_is_refused_and_the_process_goes_on(client: openai.OpenAI, server: Serving) -> None:
    heard = server.services.transcribers["whisper-base"]
    assert isinstance(heard, WhisperTranscriber)
    ask(client, wav(tone(1.0)), language="en")
    pid = heard.pid
    cases: list[tuple[bytes, dict[str, Any], str]] = [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", {}, "cannot be decoded"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", {}, "cannot be decoded"),
        (bytes(1000), {}, "cannot be decoded"),
        (wav(tone(1.0))[:44], {}, "0.000 s of sound"),
        (wav(tone(0.05)), {}, "at least 0.1 s"),
        (wav(tone(1.0)), {"language": "xx"}, "does not know the language 'xx'; it knows af, am"),
    ]
    for data, fields, reason in cases:
        with pytest.raises(openai.BadRequestError, match=re.escape(reason)):
            ask(client, data, **fields)
    assert heard.pid == pid


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (AudioLimits(sound_s=600.0, wall_s=900.0), "it is longer than 600 s; send it in parts"),
        (AudioLimits(sound_s=36_000.0, memory_bytes=96 << 20, wall_s=900.0), "recogniz"),
    ],
)
def test_a_small_file_of_an_hour_is_refused_by_length_or_memory(
    limits: AudioLimits, reason: str, whisper_path: pathlib.Path
) -> None:
    heard = WhisperTranscriber(whisper_path, threads=1, limits=limits)
    bomb = encoded(np.zeros(16_000 * 3600, "<i2"), "flac", "flac")
    assert len(bomb) < 2 << 20

    async def work() -> None:
        with pytest.raises(InvalidRequest, match=reason):
            async for _ in heard.transcribe(AudioJob(data=bomb)):
                pass
        await heard.close()

    asyncio.run(work())


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng, which speaks the words that are to be recognized, is not installed")
    path = tmp_path_factory.mktemp("speech") / "said.wav"
    subprocess.run([program, "-v", "en-us", "-s", "140", "-w", str(path), SAID], check=True, timeout=60)
    return path.read_bytes()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_spoken_words_are_recognized_in_every_form_of_the_answer(
    speech: bytes, client: openai.OpenAI
) -> None:
    """At most two of seventeen words may differ: a small model, and no person speaks."""
    plain = ask(client, speech)
    missing = [word for word in words(SAID) if word not in words(plain.text)]
    assert len(missing) <= 2, plain.text
    verbose = ask(client, speech, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert verbose.language == "en"
    starts = [word.start for word in verbose.words]
    assert starts == sorted(starts)
    assert words(" ".join(word.word for word in verbose.words)) == words(verbose.text)
    assert all(0 <= one.start < one.end <= verbose.duration + 0.5 for one in verbose.segments)
    subtitles = ask(client, speech, response_format="srt")
    assert words(re.sub(r"(?m)^[\d:, >-]+$", "", subtitles)) == words(plain.text)
    events = list(ask(client, speech, stream=True))
    assert events[-1].text == plain.text == "".join(event.delta for event in events[:-1])
    with pytest.deprecated_call():
        english = client.audio.translations.create(model="whisper-base", file=("a.wav", speech))
    assert words(english.text)[:3] == words(SAID)[:3]
