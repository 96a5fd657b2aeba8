"""Splits and ranked vocabularies against tiktoken: another regex engine, another way of merging."""

from __future__ import annotations

import base64
import functools
import json
import pathlib
from collections.abc import Callable, Sequence

import pytest
import tiktoken
import tiktoken_ext.openai_public as published
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.model.files.gguf import GgufFile
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.tokenizer_files import tokenizer_of
from pentad.model.tokenizer_gguf import from_gguf
from pentad.model.tokenizer_pre import PRE_TOKENIZERS, SPLITS
from pentad.model.tokenizer_ranks import from_tekken
from tokenizer_texts import TEXTS

MERGED = [
    "th",
    "he",
    "the",
    "in",
    "er",
    "an",
    "re",
    "on",
    "at",
    "nd",
    "st",
    "es",
    "en",
    "of",
    "te",
    "ed",
    "or",
    "ti",
    "hi",
    "as",
    "to",
    "ll",
    "12",
    "23",
    "123",
    "''",
    "aa",
    "aaa",
]
MERGED += ["日本", "テキ", "ие", "не"]
MERGED += [" the", " of", "\n\n", "  ", "    ", "''s", "it's", "DON", "'T", "ab", "bc", "abc", " 日本"]
SINGLE = [name for name, patterns in SPLITS.items() if len(patterns) == 1 and name != "bloom"]
"""Splits of one pattern, which tiktoken can take; it has no look-behind of its own kind to differ by."""
TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from("aAbzZéÉ'sTt \n\r\t.,-/19٣½日本한ǅʰ\u0301\u200d_$"), st.characters(codec="utf-8")
    ),
    max_size=40,
)


def ranks() -> dict[bytes, int]:
    """Every byte, then some texts in order of length; each is made of two before it or is left out."""
    found = {bytes([byte]): byte for byte in range(256)}
    for text in sorted(MERGED, key=len):
        data = text.encode()
        for end in range(2, len(data) + 1):
            found.setdefault(data[:end], len(found))
    return found


def tekken(pattern: str) -> str:
    controls = 20
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode()} for token, rank in ranks().items()
    ]
    size = len(vocab) + controls
    config = {"pattern": pattern, "default_vocab_size": size, "default_num_special_tokens": controls}
    return json.dumps({"config": config, "vocab": vocab})


@functools.cache
def pair(splits: str) -> tuple[Tokenizer, tiktoken.Encoding]:
    (pattern,) = SPLITS[splits]
    return from_tekken(tekken(pattern)), tiktoken.Encoding(
        splits, pat_str=pattern, mergeable_ranks=ranks(), special_tokens={}
    )


def check(splits: str, text: str) -> None:
    tokenizer, reference = pair(splits)
    assert [id - 20 for id in tokenizer.encode(text, special=False)] == reference.encode_ordinary(text)
    assert tokenizer.decode(tokenizer.encode(text, special=False)) == text


@pytest.mark.parametrize("splits", SINGLE)
def test_ranked_tokens_are_those_of_tiktoken(splits: str) -> None:
    for text in TEXTS:
        check(splits, text)


@settings(max_examples=60, deadline=None)
@given(text=TEXT, splits=st.sampled_from(SINGLE))
def test_ranked_tokens_are_those_of_tiktoken_on_any_text(text: str, splits: str) -> None:
    check(splits, text)


PUBLISHED = {"gpt-2": published.gpt2, "cl100k": published.cl100k_base, "gpt-4o": published.o200k_base}


@pytest.fixture
def patterns(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The published pattern of an encoding, whose vocabulary is not needed."""
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: {})
    monkeypatch.setattr(published, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: {})
    return lambda name: str(PUBLISHED[name]()["pat_str"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_are_the_published_ones(
    name: str, patterns: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    reference = tiktoken.Encoding(name, pat_str=patterns(name), mergeable_ranks=ranks(), special_tokens={})

    def ours(text: str) -> Sequence[int]:
        return [id - 20 for id in pair(name)[0].encode(text, special=False)]

    @settings(max_examples=60, deadline=None)
    @given(text=TEXT)
    def same(text: str) -> None:
        assert ours(text) == reference.encode_ordinary(text)

    for text in TEXTS:
        assert ours(text) == reference.encode_ordinary(text)
    same()


def test_a_name_splits_the_text_in_turns(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(make.gguf([*make.llama_pairs(), *make.tokenizer_pairs("deepseek-v3")]))
    backend = from_gguf(GgufFile(path)).backend
    found = backend.pre_tokenizer.pre_tokenize_str("12345")
    assert [piece for piece, _ in found] == ["123", "45"]
    path.write_bytes(make.gguf([*make.llama_pairs(), *make.tokenizer_pairs("falcon")]))
    backend = from_gguf(GgufFile(path)).backend
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("a`b 1234")] == [
        "a",
        "`",
        "b",
        "Ġ",
        "123",
        "4",
    ]


def test_an_unknown_name_is_refused_with_those_that_are_known(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(make.gguf([*make.llama_pairs(), *make.tokenizer_pairs("newest")]))
    with pytest.raises(BadModelFile, match=r"'newest'.*gpt-4o"):
        from_gguf(GgufFile(path))
    assert set(PRE_TOKENIZERS.values()) == set(SPLITS)


def test_tekken_has_its_control_tokens_in_front() -> None:
    tokenizer = from_tekken(tekken(SPLITS["tekken"][0]))
    assert tokenizer.special_tokens["[TOOL_CALLS]"] == 9
    assert tokenizer.prefix == (1,)
    assert tokenizer.encode("[INST]the", special=True)[0] == 3
    assert 3 not in tokenizer.encode("[INST]the", special=False)
    for broken in ("{}", "[]", "x", json.dumps({"config": {}, "vocab": []})):
        with pytest.raises(BadModelFile):
            from_tekken(broken)


def test_a_folder_s_tokenizer_is_found_in_whichever_file_it_is(tmp_path: pathlib.Path) -> None:
    lines = "\n".join(f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks().items())
    (tmp_path / "tiktoken.model").write_text(lines)
    added = {"900": {"content": "<|im_end|>", "special": True}}
    kimi = tokenizer_of(tmp_path, family="kimi_k2", settings={"added_tokens_decoder": added})
    assert kimi.special_tokens == {"<|im_end|>": 900}
    reference = tiktoken.Encoding(
        "kimi", pat_str=SPLITS["kimi-k2"][0], mergeable_ranks=ranks(), special_tokens={}
    )
    for text in TEXTS:
        assert kimi.encode(text, special=False) == reference.encode_ordinary(text)
    with pytest.raises(BadModelFile, match="'strange'"):
        tokenizer_of(tmp_path, family="strange")
    (tmp_path / "tekken.json").write_text(tekken(SPLITS["tekken"][0]))
    assert "[INST]" in tokenizer_of(tmp_path, family="mistral").special_tokens
    (tmp_path / "tokenizer.json").write_text(make.tokenizer_json())
    assert tokenizer_of(tmp_path, family="x").vocab_size == from_json(make.tokenizer_json()).vocab_size


def test_unigram_pieces_are_those_of_a_vocabulary_that_the_library_reads_itself(
    tmp_path: pathlib.Path,
) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁he", -3.0), ("llo", -4.0)]
    pieces += [(letter, -8.0 - i / 10) for i, letter in enumerate("helowrdé.")] + [("▁world", -5.0)]
    kinds = [3, 3, 2, *[1] * (len(pieces) - 3)]
    path = tmp_path / "t5.gguf"
    pairs = [
        make.pair("tokenizer.ggml.model", make.STR, "t5"),
        make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, [piece for piece, _ in pieces])),
        make.pair("tokenizer.ggml.scores", make.ARR, (make.F32, [score for _, score in pieces])),
        make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, kinds)),
        make.pair("tokenizer.ggml.eos_token_id", make.U32, 1),
        make.pair("tokenizer.ggml.unknown_token_id", make.U32, 2),
    ]
    path.write_bytes(make.gguf([*make.llama_pairs(), *pairs]))
    tokenizer = from_gguf(GgufFile(path))
    reference = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 2, False))
    reference.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    for text in ("hello world.", "  hello   world ", "held", "dé helloé", "zebra", "hello"):
        plain = " ".join(text.split())
        assert tokenizer.encode(text, special=False) == reference.encode(plain, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode("hello world", special=False)) == " hello world"
    assert (tokenizer.prefix, tokenizer.suffix) == ((), (1,))
