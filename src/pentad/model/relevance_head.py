"""RelevanceHead: what was learned of which questions mean which texts, over an encoder's vectors."""

from __future__ import annotations

import functools
import os
import pathlib
import zipfile
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile

FORMAT: Final = "pentad-relevance-head-1"
_MOST_BYTES = 256 << 20
_AGAIN = "train it again: pentad train-retriever AGENT CALLS --out FILE"
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RelevanceHead:
    """Two linear maps over the vectors of one encoder, of questions and of texts, each beside the identity.

    A head of zeros changes nothing.
    """

    encoder: str
    """Whose vectors it was trained on."""
    question: Matrix
    """[E, E]; a question's vector v becomes v + v @ question."""
    text: Matrix
    """[E, E]; likewise of a text."""
    examples: int = 0
    """Questions that it learned from."""
    steps: int = 0
    """Of training; 0 where nothing was gained on the examples held out."""

    def questions(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Vectors of questions as they are compared. Raises BadModelFile for vectors of another size."""
        return self._mapped(vectors, self.question)

    def texts(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Vectors of texts as they are compared. Raises BadModelFile for vectors of another size."""
        return self._mapped(vectors, self.text)

    def _mapped(self, vectors: npt.NDArray[np.float64], matrix: Matrix) -> npt.NDArray[np.float64]:
        if vectors.shape[1] != matrix.shape[0]:
            raise BadModelFile(
                f"the relevance head is for vectors of {matrix.shape[0]} numbers, these have "
                f"{vectors.shape[1]}",
                hint=f"serve the encoder {self.encoder!r}, or {_AGAIN}",
            )
        return vectors + vectors @ matrix


def write_head(path: pathlib.Path, head: RelevanceHead) -> None:
    """Puts the file there whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as out:
        np.savez(
            out,
            format=np.array(FORMAT),
            encoder=np.array(head.encoder),
            question=head.question,
            text=head.text,
            counts=np.array([head.examples, head.steps]),
        )
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


def read_head(path: str) -> RelevanceHead:
    """The head in a file, kept while the file stays as it is.

    Raises BadModelFile: there is no such file, or it is none of ours.
    """
    try:
        found = pathlib.Path(path).expanduser().stat()
    except OSError as error:
        raise BadModelFile(
            f"the relevance head {path!r} cannot be read: {error.strerror}", hint=_AGAIN
        ) from None
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=8)
def _read(path: str, mtime_ns: int, size: int) -> RelevanceHead:  # noqa: ARG001 - part of the key
    try:
        if size > _MOST_BYTES:
            raise ValueError(f"it has {size} bytes, more than {_MOST_BYTES}")
        with (
            pathlib.Path(path).expanduser().open("rb") as file,
            np.load(file, allow_pickle=False) as kept,
        ):
            if str(kept["format"]) != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            examples, steps = (int(count) for count in kept["counts"])
            question, text = (np.asarray(kept[name], np.float32) for name in ("question", "text"))
            encoder = str(kept["encoder"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadModelFile(f"{path!r} is no relevance head: {error}", hint=_AGAIN) from None
    size_of = question.shape[0] if question.ndim == 2 else -1
    whole = question.shape == text.shape == (size_of, size_of)
    if not whole or not (np.isfinite(question).all() and np.isfinite(text).all()):
        raise BadModelFile(f"{path!r} is no relevance head: its maps are not square and finite", hint=_AGAIN)
    return RelevanceHead(encoder=encoder, question=question, text=text, examples=examples, steps=steps)
