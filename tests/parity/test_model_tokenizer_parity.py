"""Our tokenizers against llama.cpp and transformers, on real vocabularies and text."""

from __future__ import annotations

import itertools
import pathlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import model_fixtures as make
from pentad.model.files.gguf import GgufFile
from pentad.model.loading import open_model
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_gguf import from_gguf
from pentad.model.tokenizer_pre import PRE_TOKENIZERS
from tokenizer_texts import CONTROL_TEXTS, TEXTS, wikitext


@contextmanager
def llama_cpp(path: pathlib.Path) -> Iterator[Any]:
    library = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = library.Llama(str(path), vocab_only=True, verbose=False)
    try:
        yield lambda text, special: model.tokenize(text.encode(), add_bos=False, special=special)
    finally:
        model.close()


def differing(tokenizer: Tokenizer, reference: Any, texts: list[str], special: bool) -> list[str]:
    return [t for t in texts if tokenizer.encode(t, special=special) != reference(t, special)]


COMPARED = [
    name
    for name, splits in PRE_TOKENIZERS.items()
    if splits in ("default", "gpt-2", "digits", "llama3", "cl100k", "qwen2", "falcon")
    and not name.startswith(("jina-v5", "midm", "megrez"))
]
"""Names that the library knows, and whose splits it does not approximate for letters beyond ASCII."""


@pytest.mark.parametrize("pre", COMPARED)
def test_every_pre_tokenizer_equals_llama_cpp(pre: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vocab.gguf"
    path.write_bytes(make.gguf([*make.llama_pairs(), *make.tokenizer_pairs(pre)]))
    tokenizer = from_gguf(GgufFile(path))
    with llama_cpp(path) as reference:
        for special in (False, True):
            assert differing(tokenizer, reference, [*TEXTS, *CONTROL_TEXTS], special) == []


def sentencepiece_pairs(texts: list[str], rounds: int = 400) -> list[bytes]:
    """A vocabulary trained by counting pairs, in SentencePiece's form: score falls with age."""
    words = [["▁", *word] for text in texts for word in text.split()]
    learnt: list[str] = []
    for _ in range(rounds):
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for two in itertools.pairwise(word):
                counts[two] = counts.get(two, 0) + 1
        best = max(counts, key=lambda two: (counts[two], two))
        learnt.append(best[0] + best[1])
        words = [_merged(word, best) for word in words]
    letters = sorted({letter for text in texts for letter in text if not letter.isspace()} | {"▁"})
    normal = list(dict.fromkeys(learnt + letters))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *normal]
    scores = [0.0] * 259 + [-float(i) for i in range(len(normal))]
    return [
        make.pair("tokenizer.ggml.model", make.STR, "llama"),
        make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        make.pair(
            "tokenizer.ggml.token_type", make.ARR, (make.I32, [2, 3, 3, *[6] * 256, *[1] * len(normal)])
        ),
        make.pair("tokenizer.ggml.scores", make.ARR, (make.F32, scores)),
        make.pair("tokenizer.ggml.bos_token_id", make.U32, 1),
        make.pair("tokenizer.ggml.eos_token_id", make.U32, 2),
        make.pair("tokenizer.ggml.unknown_token_id", make.U32, 0),
    ]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def test_sentencepiece_equals_llama_cpp_on_a_trained_vocabulary(tmp_path: pathlib.Path) -> None:
    sample = wikitext()
    path = tmp_path / "vocab.gguf"
    path.write_bytes(make.gguf([*make.llama_pairs(), *sentencepiece_pairs(sample[:10])]))
    tokenizer = from_gguf(GgufFile(path))
    with llama_cpp(path) as reference:
        assert differing(tokenizer, reference, [*TEXTS, *CONTROL_TEXTS, *sample], False) == []
        assert differing(tokenizer, reference, [*TEXTS, *CONTROL_TEXTS, "a</s><s>b"], True) == []


def test_smollm2_equals_llama_cpp(smollm2_path: pathlib.Path) -> None:
    files = open_model(smollm2_path)
    with llama_cpp(smollm2_path) as reference:
        for special in (False, True):
            texts = [*TEXTS, *CONTROL_TEXTS, *wikitext()]
            assert differing(files.tokenizer, reference, texts, special) == []


def test_qwen_equals_llama_cpp_on_composed_text(qwen_path: pathlib.Path) -> None:
    """On composed text only: the publisher composes characters (NFC) first, llama.cpp does not."""
    files = open_model(qwen_path)
    texts = [unicodedata.normalize("NFC", text) for text in [*TEXTS, *CONTROL_TEXTS, *wikitext()]]
    with llama_cpp(qwen_path) as reference:
        for special in (False, True):
            assert differing(files.tokenizer, reference, texts, special) == []


def test_minilm_equals_transformers(minilm_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(minilm_path)
    tokenizer = open_model(minilm_path).tokenizer
    for text in [*TEXTS, *wikitext()[:20]]:
        framed = [*tokenizer.prefix, *tokenizer.encode(text, special=False), *tokenizer.suffix]
        assert framed == reference.encode(text)
