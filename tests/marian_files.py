"""Marian's tokenizer files out of SentencePiece models: two languages, one list, some pieces missing.

Run with the library `sentencepiece` installed it records what `transformers` makes of the texts, by these
files and by the real model's.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from pentad.model.tokenizer_sentencepiece import from_sentencepiece
from tokenizer_texts import TEXTS

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data" / "sentencepiece"
RECORD = DATA / "marian.json"
SOURCE, TARGET = "unigram.model", "unigram_bytes.model"
CODES = (">>fra<<", ">>por_Latn<<")
_FUZZED: list[str] = json.loads((DATA / "expected.json").read_text("utf-8"))["texts"]
_CODED = (">>fra<<hello world", ">>fra<< hello", ">>xyz<<hello", ">>fra", "a >>fra<< b", "</s><pad><unk>")
MARIAN_TEXTS = (*TEXTS, *_CODED, *_FUZZED)


def pieces(model: pathlib.Path) -> list[str]:
    """Of a SentencePiece model, in its order."""
    made = from_sentencepiece(model.read_bytes(), added={}, settings={}, source=str(model))
    return [made.token(id) for id in range(made.vocab_size)]


def write_folder(folder: pathlib.Path, source: pathlib.Path, target: pathlib.Path, *, gaps: bool) -> None:
    """source.spm, target.spm, vocab.json and tokenizer_config.json; with gaps some pieces are left out."""
    shutil.copy(source, folder / "source.spm")
    shutil.copy(target, folder / "target.spm")
    control = ["</s>", "<unk>"]
    both = dict.fromkeys(pieces(source) + pieces(target))
    for one in (*control, "<pad>", "<s>"):
        both.pop(one, None)
    kept = [one for i, one in enumerate(sorted(both)) if not gaps or i % 7]
    listed = [*control, *kept, *CODES, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: id for id, piece in enumerate(listed)}))
    config = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>", "separate_vocabs": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_tiny(folder: pathlib.Path) -> None:
    write_folder(folder, DATA / SOURCE, DATA / TARGET, gaps=True)


def write_real(folder: pathlib.Path, model: pathlib.Path) -> None:
    write_folder(folder, model / "vocab.enpt.spm", model / "vocab.enpt.spm", gaps=False)


def _recorded(folder: pathlib.Path) -> list[list[int]]:
    import transformers

    reference: Any = transformers.MarianTokenizer.from_pretrained(str(folder))
    return [reference.convert_tokens_to_ids(reference._tokenize(text)) for text in MARIAN_TEXTS]


def main() -> None:
    root = pathlib.Path(os.environ.get("PENTAD_TEST_MODELS") or "~/.cache/pentad-test-models").expanduser()
    found = {}
    for name, write in (
        ("tiny", write_tiny),
        ("enpt", lambda folder: write_real(folder, root / "marian-enpt")),
    ):
        with tempfile.TemporaryDirectory() as made:
            write(pathlib.Path(made))
            found[name] = _recorded(pathlib.Path(made))
    RECORD.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(HERE)]
    main()
