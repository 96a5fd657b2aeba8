"""Tokenizers built from GGUF files against those that transformers builds from the same files.

Slow because transformers reads every tensor of the file on the way.
"""

from __future__ import annotations

import pathlib
import unicodedata

import pytest

from pentad.model.loading import open_model
from tokenizer_texts import CONTROL_TEXTS, TEXTS, wikitext

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model", ["smollm2", "qwen"])
def test_gguf_tokenizer_equals_transformers(model: str, request: pytest.FixtureRequest) -> None:
    transformers = pytest.importorskip("transformers")
    path: pathlib.Path = request.getfixturevalue(f"{model}_path")
    reference = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = open_model(path).tokenizer
    texts = [unicodedata.normalize("NFC", text) for text in [*TEXTS, *CONTROL_TEXTS, *wikitext()]]
    if model == "smollm2":  # from GGUF, transformers leaves out the publisher's split at every numeral
        texts = [text for text in texts if not any(c.isnumeric() and not c.isascii() for c in text)]
    different = [
        text
        for text in texts
        if tokenizer.encode(text, special=True) != reference.encode(text, add_special_tokens=False)
    ]
    assert different == []
    assert len(texts) > 90
