"""train: a stored model, a recipe and a text become a new stored model."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from pentad import __version__, choice, registry
from pentad.choice import Choice
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.training import Schedule, Trained, Trainer, TrainRecipe
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.artefact import FILE_NAME, Artefact, Training, write_artefact
from pentad.model.assembly import assemble
from pentad.model.catalogue import DERIVED
from pentad.model.derivation import Tell, job_key
from pentad.model.derived import check_free, read_text, written_out
from pentad.model.loading import ModelFiles, open_model
from pentad.model.sources.base import Fetched, disk_full_is_infeasible
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel, checked_name
from pentad.model.transforms.base import Overlay, written

CURVE_POINTS: Final = 200
"""Of a learning curve, at most."""


def train(
    store: ModelStore,
    source: str,
    name: str,
    recipe: Choice,
    data: pathlib.Path,
    *,
    schedule: Schedule,
    teacher: str | None = None,
    format: TensorFormat = "F16",
    tell: Tell,
) -> tuple[StoredModel, Artefact]:
    """Makes the model `name` out of a stored one; goes on where the same call was interrupted.

    Args:
        source: name, reference or path of the model.
        data: a text file in UTF-8, of which the last twentieth is held out.
        teacher: a model with the same tokenizer, where the recipe needs one.
        format: of the matrices that have learnt; whatever else has learnt is F32.
        tell: told steps done and in total.

    Raises:
        UnknownName, InvalidRequest: a recipe or an option that does not exist; a name that is taken.
        Incompatible: what the recipe needs is not given, or does not fit; PyTorch is not installed.
        ModelNotFound, BadModelFile, Infeasible: as the store says.
    """
    checked_name(name)
    made: TrainRecipe = choice.build("recipe", recipe)
    _check_needs(made, teacher)
    stored = store.resolve(source)
    if stored.name == name:
        raise InvalidRequest(f"{name!r} is the source itself", hint="choose another --out", param="out")
    check_free(store, name)
    text = read_text(data, "data")
    master = None if teacher is None else store.resolve(teacher)
    trainer = _trainer()
    files = open_model(stored.path, name=stored.name)
    try:
        learnt = Training(
            recipe=str(written_out(recipe, made)),
            data_sha256=hashlib.sha256(text.encode()).hexdigest(),
            steps=schedule.steps,
            batch=schedule.batch,
            window_tokens=schedule.window_tokens,
            seed=schedule.seed,
            teacher="" if master is None else master.name,
            teacher_sha256="" if master is None else store.digest(master),
        )
        digest = store.digest(stored)
        key = job_key(digest, [repr(learnt), format], "")
        with store.folders.workspace(key) as work, disk_full_is_infeasible(store.root):
            trained = _trained(trainer, files, made, text, schedule, work, master, tell)
            weights = Overlay(files.weights, _stored(trained, format))
            found = assemble(files, files.spec, weights, work)
            artefact = Artefact(
                source=stored.name,
                source_sha256=digest,
                transforms=(),
                exactness=made.exactness,
                training=_with_losses(learnt, trained),
                version=__version__,
            )
            write_artefact(work / FILE_NAME, artefact)
            found[FILE_NAME] = work / FILE_NAME
            ref = f"{DERIVED}:{stored.name}:{key}"
            return store.adopt(name, ref, Fetched(files=found), of=stored), artefact
    finally:
        files.close()


def _check_needs(recipe: TrainRecipe, teacher: str | None) -> None:
    if "teacher" in recipe.needs and teacher is None:
        raise Incompatible(
            f"recipe {recipe.name!r} learns from a teacher", hint="set --teacher to a model", param="teacher"
        )
    if "teacher" not in recipe.needs and teacher is not None:
        raise Incompatible(
            f"recipe {recipe.name!r} has no use for a teacher", hint="leave --teacher out", param="teacher"
        )


def _trainer() -> Trainer:
    try:
        trainer: Trainer = registry.load("trainer", "torch")
    except ImportError:
        raise Incompatible(
            "training needs PyTorch, which is not installed", hint="pip install 'pentad[torch]'"
        ) from None
    return trainer


def _trained(
    trainer: Trainer,
    files: ModelFiles,
    recipe: TrainRecipe,
    text: str,
    schedule: Schedule,
    work: pathlib.Path,
    master: StoredModel | None,
    tell: Tell,
) -> Trained:
    if schedule.window_tokens > files.spec.context_length:
        raise Incompatible(
            f"windows of {schedule.window_tokens} tokens are longer than the context of "
            f"{files.spec.context_length}",
            hint="set --window-tokens lower",
            param="window_tokens",
        )
    tokens = files.tokenizer.encode(text, special=False)
    if master is None:
        return trainer(files.spec, files.weights, recipe, tokens, schedule, folder=str(work), tell=tell)
    opened = open_model(master.path, name=master.name)
    try:
        if opened.tokenizer.encode(text[:4096], special=False) != files.tokenizer.encode(
            text[:4096], special=False
        ):
            raise Incompatible(
                f"{master.name!r} and {files.spec.name!r} have different tokenizers",
                hint="choose a teacher of the same family",
                param="teacher",
            )
        return trainer(
            files.spec,
            files.weights,
            recipe,
            tokens,
            schedule,
            folder=str(work),
            teacher=(opened.spec, opened.weights),
            tell=tell,
        )
    finally:
        opened.close()


def _stored(trained: Trained, format: TensorFormat) -> Mapping[str, StoredTensor]:
    return {
        name: written(name, values, format if values.ndim > 1 else "F32")
        for name, values in trained.weights.items()
    }


def _with_losses(training: Training, trained: Trained) -> Training:
    return replace(
        training,
        loss_before=trained.loss_before,
        loss_after=trained.loss_after,
        curve=thinned(trained.losses),
    )


def thinned(losses: Sequence[float]) -> tuple[float, ...]:
    """The losses, or where there are many the means of `CURVE_POINTS` stretches of them, in order."""
    if len(losses) <= CURVE_POINTS:
        return tuple(losses)
    cuts = [i * len(losses) // CURVE_POINTS for i in range(CURVE_POINTS + 1)]
    return tuple(sum(losses[a:b]) / (b - a) for a, b in itertools.pairwise(cuts))
