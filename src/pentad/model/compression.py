"""compress: a stored model, the chosen transforms and a calibration text become a new stored model."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pentad import __version__, choice, registry
from pentad.choice import Choice
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.taps import Walk
from pentad.model.artefact import FILE_NAME, Artefact, Calibration, write_artefact
from pentad.model.assembly import sizes_of
from pentad.model.catalogue import DERIVED
from pentad.model.derivation import Derivation, Tell, job_key
from pentad.model.derived import check_free, read_text, written_out
from pentad.model.loading import ModelFiles, open_model
from pentad.model.sources.base import Fetched, disk_full_is_infeasible
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel, checked_name
from pentad.model.transforms.base import ModelTransform

_WEAKER: Final = ("lossless", "bounded", "lossy")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """A file of text, of which the first windows are used."""

    path: pathlib.Path
    windows: int = 32
    window_tokens: int = 512

    def __post_init__(self) -> None:
        for name in ("windows", "window_tokens"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} is {getattr(self, name)}, must be at least 1", param=name)

    def read(self) -> str:
        """The text. Raises InvalidRequest for a file that is none."""
        return read_text(self.path, "calibration")


def compress(
    store: ModelStore,
    source: str,
    name: str,
    methods: Sequence[Choice],
    *,
    calibration: CalibrationText | None = None,
    tell: Tell,
) -> tuple[StoredModel, Artefact]:
    """Makes the model `name` out of a stored one; goes on where the same call was interrupted.

    Args:
        source: name, reference or path of the model.
        methods: transforms in the order in which they are applied.
        tell: told units done and in total.

    Raises:
        UnknownName, InvalidRequest: a method or an option that does not exist; a name that is taken.
        Incompatible: a method that does not apply, or needs a calibration text that is not given.
        ModelNotFound, BadModelFile, Infeasible: as the store says.
    """
    checked_name(name)
    transforms = [choice.build("transform", method) for method in methods]
    needs = frozenset[str]().union(*(transform.needs for transform in transforms))
    if needs and calibration is None:
        raise Incompatible(
            f"{', '.join(str(m) for m in methods)} needs a text to calibrate on",
            hint="set --calibration to a text file",
            param="calibration",
        )
    stored = store.resolve(source)
    if stored.name == name:
        raise InvalidRequest(f"{name!r} is the source itself", hint="choose another --out", param="out")
    check_free(store, name)
    text = calibration.read() if needs and calibration is not None else None
    files = open_model(stored.path, name=stored.name)
    try:
        asked = _artefact(store, stored, files, methods, transforms, calibration, text)
        key = job_key(asked.source_sha256, asked.transforms, repr(asked.calibration))
        with store.folders.workspace(key) as work, disk_full_is_infeasible(store.root):
            walk = None if text is None or calibration is None else _walk(files, text, calibration)
            job = Derivation(files=files, transforms=transforms, work=work, walk=walk).planned()
            artefact = _artefact(store, stored, files, methods, job.transforms, calibration, text)
            made = job.run(tell)
            write_artefact(work / FILE_NAME, artefact)
            made[FILE_NAME] = work / FILE_NAME
            ref = f"{DERIVED}:{stored.name}:{key}"
            return store.adopt(name, ref, Fetched(files=made), of=stored), artefact
    finally:
        files.close()


def _artefact(
    store: ModelStore,
    stored: StoredModel,
    files: ModelFiles,
    methods: Sequence[Choice],
    transforms: Sequence[ModelTransform],
    calibration: CalibrationText | None,
    text: str | None,
) -> Artefact:
    target = files.spec
    for transform in transforms:
        target = transform.target(target)
    before, after = sizes_of(files.spec), sizes_of(target)
    used = None
    if text is not None and calibration is not None:
        used = Calibration(
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            windows=calibration.windows,
            window_tokens=calibration.window_tokens,
        )
    return Artefact(
        source=stored.name,
        source_sha256=store.digest(stored),
        transforms=tuple(str(written_out(m, t)) for m, t in zip(methods, transforms, strict=True)),
        exactness=max((t.exactness for t in transforms), key=_WEAKER.index),
        calibration=used,
        changed={name: (before[name], after[name]) for name in before if before[name] != after[name]},
        version=__version__,
    )


def _walk(files: ModelFiles, text: str, calibration: CalibrationText) -> Walk:
    """The calibration text in front of the first layer. Raises Incompatible where it is too short."""
    if calibration.window_tokens > files.spec.context_length:
        raise Incompatible(
            f"windows of {calibration.window_tokens} tokens are longer than the context of "
            f"{files.spec.context_length}",
            hint="set --window-tokens lower",
            param="window_tokens",
        )
    wanted = calibration.windows * calibration.window_tokens
    tokens = files.tokenizer.encode(text[: wanted * 16], special=False)
    if len(tokens) < wanted:
        raise Incompatible(
            f"the calibration text has {len(tokens)} tokens, {calibration.windows} windows of "
            f"{calibration.window_tokens} need {wanted}",
            hint="give a longer text or set --windows lower",
            param="calibration",
        )
    starts = range(0, wanted, calibration.window_tokens)
    windows = [tokens[at : at + calibration.window_tokens] for at in starts]
    try:
        kind = registry.load("walk", "torch")
    except ImportError:
        raise Incompatible(
            "calibration needs PyTorch, which is not installed", hint="pip install 'pentad[torch]'"
        ) from None
    walk: Walk = kind(files.spec, files.weights, windows)
    return walk
