"""Certificates by request: the bench put together, measured on, and taken apart again."""

from __future__ import annotations

import hashlib
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from pentad.application.certification import EvaluatedTasks, LoadedSubject, machine_facts
from pentad.application.config import Settings
from pentad.application.folders import use_home
from pentad.application.lossy_settings import LOSSY, lossy_settings
from pentad.application.runners import engine_of
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest
from pentad.model.certification.base import Bench, EvaluationText, Metric
from pentad.model.certification.certificate import Certificate, read_certificate, write_certificate
from pentad.model.certification.certification import USUAL, Question, certify, source_of
from pentad.model.certification.checking import Difference, differences
from pentad.model.derived import read_text
from pentad.model.loading import ModelFiles
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.resource.energy import machine_meter

Tell = Callable[[int, int], None]
Alone = Callable[[Settings, str], Settings]
"""The settings that serve one model and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be certified, and on what."""

    model: str
    source: str | None = None
    text: pathlib.Path | None = None
    windows: int = 16
    window_tokens: int = 256
    metrics: tuple[str, ...] = ()
    data: pathlib.Path | None = None
    seed: int = 0

    def command(self, settings: dict[str, str]) -> str:
        """What measures the same again."""
        words = ["pentad", "certify", self.model]
        words += ["--source", self.source] if self.source else []
        if self.text is not None:
            words += ["--text", str(self.text), "--windows", str(self.windows)]
            words += ["--window-tokens", str(self.window_tokens)]
        words += [word for name in self.metrics for word in ("--metric", name)]
        words += ["--data", str(self.data)] if self.data else []
        words += ["--seed", str(self.seed)]
        words += [w for k, v in settings.items() for w in (f"--{k.replace('_', '-')}", v)]
        return shlex.join(words)

    def evaluation(self) -> dict[str, str | int]:
        """Where the data lie and how much is read, as a certificate keeps it."""
        found: dict[str, str | int] = {}
        if self.text is not None:
            found |= {"text": str(self.text.absolute()), "windows": self.windows}
            found |= {"window_tokens": self.window_tokens}
        if self.data is not None:
            found["data"] = str(self.data.absolute())
        return found


def certificate_of(
    settings: Settings, request: Request, alone: Alone, tell: Tell
) -> tuple[Certificate, pathlib.Path]:
    """Measures, and keeps the certificate beside the model. Raises what `certify` and `source_of` do."""
    store = ModelStore(use_home(settings, write=True))
    found = measure(store, settings, request, alone, tell)
    return found, write_certificate(store.folders, found)


def check_certificate(
    settings: Settings, request: Request, alone: Alone, tell: Tell
) -> tuple[Certificate, list[Difference]]:
    """The certificate that is there, and what is measured now beside it.

    Raises:
        InvalidRequest: there is none, or the text is not the one that it was measured on.
        BadModelFile: it was changed, or the model's files were.
    """
    store = ModelStore(use_home(settings, write=True))
    model = store.resolve(request.model)
    if model.owned and any(model.name == each.name for each in store.list()):
        store.verify(model.name)
    lossy = lossy_settings(engine_of(settings.engine, model.name))
    found = read_certificate(store.folders, store.digest(model), lossy)
    if found is None:
        raise InvalidRequest(
            f"{model.name!r} has no certificate{f' under {lossy}' if lossy else ''}",
            hint=f"pentad certify {request.model} makes one",
            param="model",
        )
    kept = found.evaluation
    again = replace(
        request,
        source=request.source or found.source,
        text=request.text or (pathlib.Path(str(kept["text"])) if "text" in kept else None),
        windows=int(kept.get("windows", request.windows)),
        window_tokens=int(kept.get("window_tokens", request.window_tokens)),
        data=request.data or (pathlib.Path(str(kept["data"])) if "data" in kept else None),
        metrics=tuple(found.measured),
        seed=found.seed,
    )
    now = measure(store, settings, again, alone, tell)
    for name, digest in found.data.items():
        if now.data.get(name) != digest:
            raise InvalidRequest(
                f"the certificate was measured on {name} data with SHA-256 {digest}, these have "
                f"{now.data.get(name)}",
                hint="give the same data with --text and --data",
                param="text",
            )
    return found, list(differences(found, now))


def measure(
    store: ModelStore,
    settings: Settings,
    request: Request,
    alone: Alone,
    tell: Tell = lambda *_: None,
) -> Certificate:
    """What a certificate would say, kept nowhere. Raises what `certify` and `source_of` do."""
    model = store.resolve(request.model)
    engine = engine_of(settings.engine, model.name)
    lossy = lossy_settings(engine)
    if engine.backend != "engine":
        raise Incompatible(
            "certificates are about Pentad's own engine", hint="set --backend engine", param="backend"
        )
    if "kv_policy" in lossy:
        raise Incompatible(
            "a certificate cannot be about a KV policy that drops entries yet",
            hint="leave --kv-policy out",
            param="kv_policy",
        )
    source = (
        source_of(store, model, settings=lossy) if request.source is None else store.resolve(request.source)
    )
    names = request.metrics or _usual(request)
    metrics = [Choice.of(name) for name in names]
    built: list[Metric] = [build("metric", each) for each in metrics]
    room = max([request.window_tokens, 256, *(getattr(m, "context_tokens", 0) for m in built)])
    with _bench(store, settings, request, (source, model), alone, room) as (bench, tasks):
        question = Question(
            model=model,
            source=source,
            settings=lossy,
            metrics=metrics,
            evaluation=request.evaluation(),
            command=request.command(lossy),
            machine=machine_facts(bench.meter),
        )
        found = certify(store, question, bench, tell=tell)
        tasks.done()
        return found


def _usual(request: Request) -> tuple[str, ...]:
    """What can be measured with what is given."""
    tasks = ("gsm8k", "bfcl", "tool-calls") if request.data is not None else ()
    return (*USUAL, *tasks)


@contextmanager
def _bench(
    store: ModelStore,
    settings: Settings,
    request: Request,
    models: tuple[StoredModel, StoredModel],
    alone: Alone,
    room: int,
) -> Iterator[tuple[Bench, EvaluatedTasks]]:
    """Both models side by side, the source under the usual settings."""
    plain = settings.engine.model_copy(update=dict(LOSSY))
    free = settings.model_copy(update={"quality_floor": {}})  # what is measured need not be good
    opened: list[LoadedSubject] = []
    try:
        for stored, engine in zip(models, (plain, settings.engine), strict=True):
            opened.append(
                LoadedSubject(
                    store,
                    stored,
                    engine_of(engine, stored.name),
                    packed_folder=settings.packed_folder,
                    context_tokens=partial(_room, most=room),
                )
            )
        source, derived = opened
        _check_tokenizers(source.files, derived.files)
        windows: Sequence[Sequence[int]] = ()
        digest = ""
        if request.text is not None:
            text = read_text(request.text, "text")
            digest = hashlib.sha256(text.encode()).hexdigest()
            cut = EvaluationText(
                path=request.text, windows=request.windows, window_tokens=request.window_tokens
            )
            windows = cut.cut(derived.files, text)
        tasks = EvaluatedTasks(
            request.data, request.seed, lambda name: alone(free, name), store.folders.folder("partial")
        )
        yield (
            Bench(
                source=source,
                derived=derived,
                windows=windows,
                text_sha256=digest,
                tasks=tasks,
                meter=machine_meter(),
                clock=time.monotonic,
                seed=request.seed,
            ),
            tasks,
        )
    finally:
        for each in opened:
            each.close()


def _room(files: ModelFiles, *, most: int) -> int:
    return min(files.spec.context_length, most)


def _check_tokenizers(source: ModelFiles, derived: ModelFiles) -> None:
    sample = "The quick brown fox, 3.14; naïve façade\n\tdef f(x): return x"
    one, two = (files.tokenizer.encode(sample, special=False) for files in (source, derived))
    if one != two or source.spec.vocab_size != derived.spec.vocab_size:
        raise Incompatible(
            f"{source.name!r} and {derived.name!r} have different tokenizers",
            hint="give as --source the model that it was made from",
            param="source",
        )
