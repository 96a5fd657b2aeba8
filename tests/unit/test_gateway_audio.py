"""/v1/audio: every field of the form, every form of the answer, and what is refused by which field."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from gateway_app import call, param_of
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.services import Services
from pentad.model.audio.transcript import SoundInfo
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.testing.sounds import ScriptedTranscriber, segment

PARTS = (
    segment(0, " Good morning.", start=0.0, end=1.5),
    segment(1, " It --> is\n\ncold.", start=61.25, end=3723.0625),
)
TEXT = "Good morning. It --> is\n\ncold."
TRANSCRIBE, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"


def app_of(
    *, info: SoundInfo | None = None, served: bool = True, **settings: Any
) -> tuple[Any, ScriptedTranscriber]:
    heard = ScriptedTranscriber(PARTS, info=info or SoundInfo(language="pt", duration_s=3723.1))
    models = ModelService({"scripted": ScriptedBackend([("x",)], repeat=True)}, router=Fixed())
    services = Services(models=models, transcribers={"whisper": heard} if served else {})
    return create_app(services, GatewaySettings(**settings)), heard


def send(app: Any, path: str = TRANSCRIBE, data: bytes = b"RIFFsound", **fields: Any) -> httpx2.Response:
    made = httpx2.Request("POST", "http://x/", files={"file": ("a.wav", data, "audio/wav")}, data=fields)
    return call(app, "POST", path, raw=made.read(), headers={"content-type": made.headers["content-type"]})


def test_the_plain_answer_has_the_text_and_counts_begun_seconds() -> None:
    app, heard = app_of()
    answer = send(app, model="whisper")
    assert answer.json() == {"text": TEXT, "usage": {"type": "duration", "seconds": 3724}}
    (job,) = heard.jobs
    assert (job.data, job.task, job.language, job.prompt) == (b"RIFFsound", "transcribe", None, "")
    assert (job.temperature, job.words, job.skip_silence) == (0.0, False, False)


def test_every_field_reaches_the_recognizer() -> None:
    app, heard = app_of()
    fields = {"language": "PT", "prompt": "Pentad", "temperature": "0.5", "chunking_strategy": "auto"}
    send(app, response_format="verbose_json", **fields, **{"timestamp_granularities[]": ["word", "segment"]})
    (job,) = heard.jobs
    assert (job.language, job.prompt, job.temperature) == ("pt", "Pentad", 0.5)
    assert (job.words, job.skip_silence) == (True, True)


def test_a_translation_has_no_language_and_says_its_task() -> None:
    app, heard = app_of()
    answer = send(app, TRANSLATE, response_format="verbose_json", language="pt").json()
    assert (answer["task"], answer["language"]) == ("translate", "pt")
    assert (heard.jobs[0].task, heard.jobs[0].language) == ("translate", None)


def test_subtitles_cannot_be_broken_by_what_is_said() -> None:
    app, _ = app_of()
    srt = send(app, response_format="srt")
    assert srt.headers["content-type"].startswith("text/plain")
    assert srt.text == (
        "1\n00:00:00,000 --> 00:00:01,500\nGood morning.\n\n"
        "2\n00:01:01,250 --> 01:02:03,062\nIt -> is cold.\n\n"
    )
    vtt = send(app, response_format="vtt").text
    assert vtt == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nGood morning.\n\n"
        "00:01:01.250 --> 01:02:03.062\nIt -> is cold.\n\n"
    )
    assert send(app, response_format="text").text == TEXT + "\n"


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ((), {"segments"}),
        (("segment",), {"segments"}),
        (("word",), {"words"}),
        (("word", "segment"), {"segments", "words"}),
    ],
)
def test_verbose_answers_hold_the_times_that_were_asked_for(asked: tuple[str, ...], keys: set[str]) -> None:
    app, heard = app_of()
    fields = {"timestamp_granularities[]": list(asked)} if asked else {}
    answer = send(app, response_format="verbose_json", **fields).json()
    assert set(answer) == {"task", "language", "duration", "text", "usage"} | keys
    assert heard.jobs[0].words == ("word" in asked)
    if "words" in keys:
        assert answer["words"][:2] == [
            {"word": "Good", "start": 0.0, "end": 0.75},
            {"word": "morning.", "start": 0.75, "end": 1.5},
        ]
    if "segments" in keys:
        assert [(one["id"], one["start"], one["text"]) for one in answer["segments"]] == [
            (0, 0.0, " Good morning."),
            (1, 61.25, " It --> is\n\ncold."),
        ]


def test_streamed_deltas_join_to_the_plain_text() -> None:
    app, _ = app_of()
    answer = send(app, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"] == TEXT
    assert events[-1]["usage"] == {"type": "duration", "seconds": 3724}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "mp3"}, "response_format"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": "maybe"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "line", "response_format": "verbose_json"}, "timestamp_granularities"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(fields: dict[str, str], param: str) -> None:
    app, heard = app_of()
    answer = send(app, **fields)
    assert (answer.status_code, param_of(answer)) == (400, param)
    assert not heard.jobs


def test_a_model_that_is_not_served_is_told_with_those_that_are() -> None:
    app, _ = app_of()
    answer = send(app, model="whisper-1")
    assert (answer.status_code, param_of(answer)) == (404, "model")
    assert "set `model` to one of: whisper" in answer.json()["error"]["message"]
    none, _ = app_of(served=False)
    answer = send(none, model="whisper-1")
    assert answer.status_code == 404
    assert "pip install 'pentad[audio]'" in answer.json()["error"]["message"]


def test_uploads_are_bounded_and_need_a_file() -> None:
    app, heard = app_of(max_body_bytes=5000)
    assert send(app, data=bytes(6000)).status_code == 413
    assert call(app, "POST", TRANSCRIBE, body={"file": "x"}).status_code == 400
    assert not heard.jobs


def test_a_cut_prompt_and_unread_fields_are_told() -> None:
    app, _ = app_of(info=SoundInfo(language="en", duration_s=1.0, prompt_tokens_cut=7))
    answer = send(app, prompt="long", **{"include[]": "logprobs"})
    told = {value for name, value in answer.headers.items() if name.startswith("x-pentad")}
    assert any("7 tokens are left out" in value for value in told), answer.headers
    assert any("include[]" in value for value in told)


def test_the_model_is_among_the_served_ones() -> None:
    app, _ = app_of()
    cards = {card["id"]: card for card in call(app, "GET", "/v1/models").json()["data"]}
    assert cards["whisper"]["capabilities"]["kind"] == "transcribe"
    assert call(app, "GET", "/v1/models/whisper").json()["id"] == "whisper"
