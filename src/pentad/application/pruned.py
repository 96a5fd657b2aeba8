"""A pruning report by request: both models opened, texts cut, losses measured in our engine."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from pentad.application.certification import LoadedSubject
from pentad.application.config import Settings
from pentad.application.folders import use_home
from pentad.application.lossy_settings import LOSSY
from pentad.application.runners import engine_of
from pentad.choice import Choice
from pentad.errors import Incompatible
from pentad.execution.runner import Runner
from pentad.model.artefact import read_artefact
from pentad.model.certification.base import EvaluationText
from pentad.model.certification.certification import source_of
from pentad.model.certification.logits import log_softmax, logits_of
from pentad.model.derived import read_text
from pentad.model.pruning_report import PruningReport, matrix_changes, text_changes
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel


def pruning_report(
    settings: Settings,
    name: str,
    texts: Mapping[str, pathlib.Path],
    *,
    source: str | None = None,
    windows: int = 8,
    window_tokens: int = 256,
) -> tuple[PruningReport, Mapping[int, str]]:
    """The report of a stored model, and the text of the tokens that it lists.

    Raises what opening a model does; Incompatible for texts that are too short.
    """
    store = ModelStore(use_home(settings))
    model = store.resolve(name)
    origin = source_of(store, model, settings={}) if source is None else store.resolve(source)
    engine = settings.engine.model_copy(update=dict(LOSSY))
    opened: list[LoadedSubject] = []

    def subject(stored: StoredModel) -> LoadedSubject:
        opened.append(
            LoadedSubject(
                store,
                stored,
                engine_of(engine, stored.name),
                packed_folder=settings.packed_folder,
                context_tokens=lambda files: min(files.spec.context_length, window_tokens),
            )
        )
        return opened[-1]

    try:
        old, new = subject(origin), subject(model)
        cut = {
            each: EvaluationText(path=path, windows=windows, window_tokens=window_tokens).cut(
                new.files, read_text(path, "text")
            )
            for each, path in texts.items()
        }
        gone = _left_out(model)
        if old.files.spec.layers - len(gone) != new.files.spec.layers:
            raise Incompatible(
                f"{model.name!r} has not the layers of {origin.name!r}",
                hint="give as --source the model that it was made from",
                param="source",
            )
        found = tuple(matrix_changes(old.files.weights, new.files.weights, old.files.spec.layers, gone))
        changes, tokens = (
            text_changes(cut, partial(_losses, old.runner()), partial(_losses, new.runner()))
            if cut
            else ((), ())
        )
        words = {each.token: new.files.tokenizer.decode([each.token]) for each in tokens}
        return PruningReport(matrices=found, texts=changes, tokens=tokens), words
    finally:
        for each in opened:
            each.close()


def _left_out(model: StoredModel) -> tuple[int, ...]:
    """The layers that the model's artefact says were dropped."""
    artefact = read_artefact(model.path if model.path.is_dir() else model.path.parent)
    chosen = [Choice.of(text) for text in (artefact.transforms if artefact else ())]
    return tuple(i for each in chosen if each.name == "drop-layers" for i in each.options["layers"])


def _losses(runner: Runner, window: Sequence[int]) -> npt.NDArray[np.float64]:
    parts = [log_softmax(logits) for logits in logits_of(runner, window[:-1])]
    targets = np.array(window[1:])
    found = -np.concatenate(parts)[np.arange(len(targets)), targets]
    return np.asarray(found, np.float64)
