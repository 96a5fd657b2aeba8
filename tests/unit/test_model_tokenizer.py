"""Tokenizers: exact bytes, no forged control tokens, each kind that files describe."""

from __future__ import annotations

import json
import pathlib
import time
import unicodedata
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as Backend

import model_fixtures as make
from pentad.errors import BadModelFile, InvalidRequest
from pentad.model import tokenizer_pieces
from pentad.model.files.gguf import GgufFile
from pentad.model.tokenizer import Detokenizer, Tokenizer, from_json
from pentad.model.tokenizer_gguf import from_gguf
from pentad.model.tokenizer_pre import PRE_TOKENIZERS

UNICODE = [
    "",
    " ",
    "hello world",
    "  two  spaces \t\n\n",
    "שלום עולם, مرحبا بالعالم",
    "👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪",
    "e\u0301 à\u0327\u0300 ก็",
    "日本語 한국어 中文",
    "\x00\x07\x1b[31m\x7f\u2028\ufeff",
    "\U0010ffff\U000e0041",
]


def tiny() -> Tokenizer:
    return from_json(make.tokenizer_json())


@pytest.mark.parametrize("text", UNICODE)
def test_text_survives_encoding_and_decoding(text: str) -> None:
    tokenizer = tiny()
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(id) for id in ids) == text.encode()


def test_control_text_is_control_only_when_asked_for() -> None:
    tokenizer = tiny()
    text = "a<|im_end|>b"
    assert 2 in tokenizer.encode(text, special=True)
    plain = tokenizer.encode(text, special=False)
    assert 2 not in plain
    assert tokenizer.decode(plain) == text


def test_markers_that_are_no_controls_are_read_either_way() -> None:
    tokenizer = tiny()
    marker = make.vocabulary()[0].index("<tool_call>")
    assert marker in tokenizer.encode("x<tool_call>y", special=False)
    assert marker in tokenizer.encode("x<tool_call>y", special=True)
    assert tokenizer.special_tokens == {text: i for i, text in enumerate(make.CONTROLS)}


def test_control_tokens_are_spelled_out_only_when_asked_for() -> None:
    tokenizer = tiny()
    ids = tokenizer.encode("hello<|im_end|>", special=True)
    assert tokenizer.decode(ids) == "hello"
    assert tokenizer.decode(ids, special=True) == "hello<|im_end|>"
    assert tokenizer.token_bytes(2) == b"<|im_end|>"


@pytest.mark.parametrize("text", ["\ud83d", "ok \udc00 ok", "\ud83d\ud83d"])
@pytest.mark.parametrize("special", [False, True])
def test_lone_surrogate_is_refused_with_its_place(text: str, special: bool) -> None:
    with pytest.raises(InvalidRequest, match=r"lone surrogate U\+D.* at character \d"):
        tiny().encode(text, special=special)


def test_padding_rows_have_no_text_and_ids_past_them_do_not_exist() -> None:
    tokenizer = from_json(make.tokenizer_json(), size=make.VOCAB + 8)
    assert tokenizer.vocab_size == make.VOCAB + 8
    assert tokenizer.token_bytes(make.VOCAB + 7) == b""
    assert tokenizer.decode([make.VOCAB]) == ""
    for id in (make.VOCAB + 8, -1):
        with pytest.raises(IndexError):
            tokenizer.token_bytes(id)


def test_characters_the_vocabulary_lacks_are_replaced_not_dropped() -> None:
    state = json.loads(make.tokenizer_json())
    for letter in ("ą", "ñ"):  # bytes 0x05 and 0xF1
        del state["model"]["vocab"][letter]
    tokenizer = from_json(json.dumps(state))
    replaced = tokenizer.decode(tokenizer.encode("a\x05b\U00040000c\U00080000d", special=False))
    assert replaced == "a\ufffdb\ufffdc\U00080000d"


def gguf_tokenizer(folder: pathlib.Path, pairs: list[bytes]) -> Tokenizer:
    path = folder / "t.gguf"
    path.write_bytes(make.gguf(pairs))
    return from_gguf(GgufFile(path))


def test_gguf_and_json_spell_the_same_tokenizer(tmp_path: pathlib.Path) -> None:
    built, loaded = gguf_tokenizer(tmp_path, make.tokenizer_pairs()), tiny()
    assert built.special_tokens == loaded.special_tokens
    for text in [*UNICODE, "hello world <|im_end|> <tool_call> 12345 don't"]:
        for special in (False, True):
            assert built.encode(text, special=special) == loaded.encode(text, special=special)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    split = tokenizer.backend.pre_tokenizer.pre_tokenize_str(text)
    return [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in split]


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["it", "'s", " 1234", " DON", "'", "T", "  \n", "\n", "x"]),
        ("smollm", ["it", "'s", " ", "1", "2", "3", "4", " DON", "'", "T", "  \n", "\n", "x"]),
        ("llama-bpe", ["it", "'s", " ", "123", "4", " DON", "'T", "  \n\n", "x"]),
        ("qwen2", ["it", "'s", " ", "1", "2", "3", "4", " DON", "'T", "  \n\n", "x"]),
        ("default", ["it", "'", "s", " ", "123", "4", " DON", "'", "T", "  \n", "\n", "x"]),
    ],
)
def test_pre_tokenizer_splits_as_its_name_says(pre: str, expected: list[str], tmp_path: pathlib.Path) -> None:
    found = pieces(gguf_tokenizer(tmp_path, make.tokenizer_pairs(pre)), "it's 1234 DON'T  \n\nx")
    assert found == expected


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_keeps_every_byte(pre: str, tmp_path: pathlib.Path) -> None:
    tokenizer = gguf_tokenizer(tmp_path, make.tokenizer_pairs(pre))
    for text in UNICODE:
        decoded = tokenizer.decode(tokenizer.encode(text, special=False))
        assert decoded == (unicodedata.normalize("NFC", text) if tokenizer.backend.normalizer else text)


SPM = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
SPM_WORDS = [
    "▁",
    "h",
    "e",
    "l",
    "o",
    "w",
    "r",
    "d",
    "he",
    "ll",
    "▁he",
    "llo",
    "▁hello",
    "▁w",
    "or",
    "▁wor",
    "ld",
]
SPM_WORDS += ["<", "s", ">", "/", "▁<", "s>"]


def spm_pairs(**extra: bytes) -> list[bytes]:
    tokens = [*SPM, *SPM_WORDS]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(SPM_WORDS)]
    scores = [0.0] * len(SPM) + [-float(len(SPM_WORDS) - len(word)) for word in SPM_WORDS]
    pairs = {
        "model": make.pair("tokenizer.ggml.model", make.STR, "llama"),
        "tokens": make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        "kinds": make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, kinds)),
        "scores": make.pair("tokenizer.ggml.scores", make.ARR, (make.F32, scores)),
        "bos": make.pair("tokenizer.ggml.bos_token_id", make.U32, 1),
        "eos": make.pair("tokenizer.ggml.eos_token_id", make.U32, 2),
        "unk": make.pair("tokenizer.ggml.unknown_token_id", make.U32, 0),
    }
    return list((pairs | extra).values())


def test_sentencepiece_prefers_the_best_scored_pair_and_falls_back_to_bytes(tmp_path: pathlib.Path) -> None:
    tokenizer = gguf_tokenizer(tmp_path, spm_pairs())
    ids = tokenizer.encode("hello world ß", special=False)
    assert [tokenizer.token(id) for id in ids] == ["▁hello", "▁wor", "ld", "▁", "<0xC3>", "<0x9F>"]
    assert b"".join(tokenizer.token_bytes(id) for id in ids) == " hello world ß".encode()
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), ())


def test_sentencepiece_never_reads_control_text_as_control(tmp_path: pathlib.Path) -> None:
    tokenizer = gguf_tokenizer(tmp_path, spm_pairs())
    plain = tokenizer.encode("</s> <s>", special=False)
    assert not {1, 2} & set(plain)
    assert tokenizer.decode(plain) == " </s> <s>"
    assert tokenizer.encode("</s>", special=True)[-1] == 2


def test_sentencepiece_without_a_space_prefix_adds_none(tmp_path: pathlib.Path) -> None:
    flag = make.pair("tokenizer.ggml.add_space_prefix", make.BOOL, False)
    tokenizer = gguf_tokenizer(tmp_path, spm_pairs(flag=flag))
    assert tokenizer.decode(tokenizer.encode("hello", special=False)) == "hello"


def test_bos_is_added_or_not_as_the_file_says(tmp_path: pathlib.Path) -> None:
    flag = make.pair("tokenizer.ggml.add_bos_token", make.BOOL, False)
    assert gguf_tokenizer(tmp_path, spm_pairs(flag=flag)).prefix == ()
    assert gguf_tokenizer(tmp_path, make.tokenizer_pairs("llama-bpe")).prefix == (0,)
    assert gguf_tokenizer(tmp_path, make.tokenizer_pairs("qwen2")).prefix == ()


@pytest.mark.parametrize("kind", [make.U8, make.U32, make.I32])
def test_a_flag_written_as_a_number_is_read_as_one(kind: int, tmp_path: pathlib.Path) -> None:
    for value, prefix in ((0, ()), (1, (1,))):
        flag = make.pair("tokenizer.ggml.add_bos_token", kind, value)
        assert gguf_tokenizer(tmp_path, spm_pairs(flag=flag)).prefix == prefix
    with pytest.raises(BadModelFile, match="add_bos_token' is 2, must be true or false"):
        gguf_tokenizer(tmp_path, spm_pairs(flag=make.pair("tokenizer.ggml.add_bos_token", kind, 2)))


def long_vocabulary(words: list[str]) -> dict[str, bytes]:
    tokens = [*SPM, *SPM_WORDS, *words]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - len(SPM))]
    return {
        "tokens": make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        "kinds": make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, kinds)),
        "scores": make.pair("tokenizer.ggml.scores", make.ARR, (make.F32, [0.0] * len(tokens))),
    }


def test_a_long_vocabulary_entry_costs_no_more_than_its_length(tmp_path: pathlib.Path) -> None:
    started = time.thread_time()
    tokenizer = gguf_tokenizer(tmp_path, spm_pairs(**long_vocabulary(["ab" * 80_000])))
    assert time.thread_time() - started < 2  # took 8 s when every cut of it was looked up
    assert tokenizer.decode(tokenizer.encode("hello", special=False)) == " hello"


def test_a_vocabulary_of_ever_longer_entries_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_pieces, "MAX_HALVING_CHARS", 1 << 20)
    words = ["x" * length for length in range(1, 400)]
    with pytest.raises(BadModelFile, match="too many long tokens"):
        gguf_tokenizer(tmp_path, spm_pairs(**long_vocabulary(words)))


@pytest.mark.parametrize("where", ["vocab", "added"])
def test_an_id_beyond_the_table_is_refused_and_gaps_are_padding(where: str) -> None:
    state = json.loads(make.tokenizer_json())
    size = len(state["model"]["vocab"])
    if where == "vocab":
        state["model"]["vocab"]["zq"] = size + 50
    else:
        state["model"]["vocab"]["<far>"] = size + 50
        state["added_tokens"].append({**state["added_tokens"][0], "id": size + 50, "content": "<far>"})
    text = json.dumps(state)
    with pytest.raises(
        BadModelFile, match=f"ids up to {size + 50}, but the embedding table has {size + 50} rows"
    ):
        from_json(text, size=size + 50)
    tokenizer = from_json(text)
    assert tokenizer.vocab_size == size + 51
    assert tokenizer.token_bytes(size + 3) == b""
    assert tokenizer.token_bytes(size + 50) == (b"zq" if where == "vocab" else b"<far>")


def test_wordpiece_of_a_gguf_file_frames_and_splits_words(tmp_path: pathlib.Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁un", "believ", "able", "▁[", "▁]", "▁cls"]
    pairs = [
        make.pair("tokenizer.ggml.model", make.STR, "bert"),
        make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, [3, 3, 3, 3, 1, 1, 1, 1, 1, 1])),
        make.pair("tokenizer.ggml.unknown_token_id", make.U32, 1),
        make.pair("tokenizer.ggml.cls_token_id", make.U32, 2),
        make.pair("tokenizer.ggml.seperator_token_id", make.U32, 3),
    ]
    tokenizer = gguf_tokenizer(tmp_path, pairs)
    assert tokenizer.encode("Unbelievable", special=False) == [4, 5, 6]
    assert tokenizer.encode("[CLS]", special=False) == [7, 9, 8]
    assert tokenizer.encode("ж", special=False) == [1]
    assert (tokenizer.prefix, tokenizer.suffix) == ((2,), (3,))
    assert tokenizer.decode([4, 5, 6]) == " unbelievable"


def unigram(**over: Any) -> Tokenizer:
    """A vocabulary whose model itself matches the text of a control token."""
    vocab = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        ("▁", -3.0),
        ("<", -9.0),
        (">", -9.0),
        ("/", -9.0),
        ("s", -9.0),
    ]
    backend = Backend(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    return from_json(backend.to_str())


def test_control_text_inside_the_vocabulary_itself_is_not_matched() -> None:
    tokenizer = unigram()
    plain = tokenizer.encode("</s> <s>s", special=False)
    assert not {1, 2} & set(plain)
    assert tokenizer.decode(plain) == "</s> <s>s"
    assert tokenizer.encode("</s>", special=True) == [2]


def test_merges_that_lead_to_a_control_token_are_not_followed() -> None:
    vocab = {"<": 0, "e": 1, ">": 2, "<e": 3, "<e>": 4}
    backend = Backend(models.BPE(vocab=vocab, merges=[("<", "e"), ("<e", ">")]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<e>", special=True, normalized=False)])
    tokenizer = from_json(backend.to_str())
    assert tokenizer.encode("<e>", special=False) == [3, 2]
    assert tokenizer.encode("<e>", special=True) == [4]


def test_truncation_of_a_training_recipe_is_not_applied() -> None:
    state = json.loads(make.tokenizer_json())
    state["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    state["padding"] = {
        "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
    }  # fmt: skip
    tokenizer = from_json(json.dumps(state))
    assert tokenizer.decode(tokenizer.encode("abcdefgh", special=False)) == "abcdefgh"
    assert len(tokenizer.encode("a", special=False)) == 1


def test_frame_is_taken_from_the_post_processor() -> None:
    backend = Backend.from_str(make.tokenizer_json())
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    tokenizer = from_json(backend.to_str())
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), (2,))
    assert tokenizer.encode("a", special=True) == [tokenizer.encode("a", special=False)[0]]


def test_decoder_we_lack_is_named() -> None:
    state = json.loads(make.tokenizer_json()) | {
        "decoder": {"type": "CTC", "pad_token": "p", "word_delimiter_token": "|", "cleanup": True}
    }
    with pytest.raises(BadModelFile, match=r"CTC.*ByteLevel, WordPiece"):
        from_json(json.dumps(state))


def test_detokenizer_holds_a_character_until_it_is_whole() -> None:
    tokenizer = tiny()
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("a😀", special=False)
    assert [detokenizer.push(id) for id in ids] == ["a", "", "", "", "😀"]
    assert detokenizer.flush() == ""


def test_detokenizer_closes_a_broken_character_at_the_end() -> None:
    tokenizer = tiny()
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("😀", special=False)[:2]
    assert "".join(detokenizer.push(id) for id in ids) == ""
    assert detokenizer.flush() == "\ufffd" == tokenizer.decode(ids)
