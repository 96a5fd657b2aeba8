"""What the table of coverage says of single published models beside their parity, on tiny random weights."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

import model_fixtures as make
from family_cases import CASES
from family_files import V, tiny_model, write_folder
from pentad.execution.torch.runner import TorchRunner
from pentad.model.geometries import GEOMETRIES
from pentad.model.geometries.decoders import BAND
from pentad.model.loading import ModelFiles, open_model
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.tokenizer_sentencepiece import from_sentencepiece
from ragged_batches import ragged, whole

TOLERANCE = 1e-3


def opened(name: str, folder: pathlib.Path) -> tuple[Any, ModelFiles]:
    """The reference and our files of a case."""
    model = tiny_model(CASES[name])
    return model, open_model(write_folder(CASES[name], model, folder))


def expected(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([tokens])).logits[0].float().numpy()
        return found


@pytest.mark.row("m-gpt3", "mechanism", claims=(3,))
def test_gpt_2_s_weights_run_in_gpt_3_s_blocks_and_agree_as_far_as_the_band_reaches(
    tmp_path: pathlib.Path,
) -> None:
    model, files = opened("gpt2", tmp_path)
    published = GEOMETRIES["gpt3-125m"].spec("gpt3-125m")
    kinds = [{re.sub(r"\.\d+\.", ".", n) for n in spec.tensors()} for spec in (published, files.spec)]
    assert kinds[0] == kinds[1]
    windows = [block.mixer.window for block in published.blocks[:3]]  # type: ignore[union-attr]
    assert windows == [None, BAND, None]
    blocks = tuple(
        dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, window=window))  # type: ignore[arg-type]
        for block, window in zip(files.spec.blocks, windows, strict=True)
    )
    spec = dataclasses.replace(files.spec, stack=dataclasses.replace(files.spec.stack, blocks=blocks))
    runner = TorchRunner.load(spec, files.weights, num_blocks=32, dtype="float32")
    tokens = np.random.default_rng(5).integers(0, V, BAND + 70).tolist()
    off = np.abs(runner.logits(whole(tokens)) - expected(model, tokens)).max(axis=1)
    assert off[:BAND].max() < TOLERANCE
    assert off[BAND:].min() > TOLERANCE
    files.close()


@pytest.mark.row("m-bloom", "mechanism", claims=(2,))
def test_bloom_reads_twice_the_length_that_it_was_trained_at(tmp_path: pathlib.Path) -> None:
    """2,048 tokens are what a config without `seq_length` was trained at."""
    model, files = opened("bloom", tmp_path)
    assert files.spec.context_length == 2 * 2048
    tokens = np.random.default_rng(5).integers(0, V, 4096).tolist()
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=256, dtype="float32")
    blocks = list(range(256))
    found = [runner.logits(ragged([(tokens[i : i + 512], i, blocks)])) for i in range(0, 4096, 512)]
    logits = np.concatenate(found)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits, expected(model, tokens), atol=TOLERANCE)
    files.close()


GALACTICA = (
    "[START_REF]", "[END_REF]", "[IMAGE]", "<fragments>", "</fragments>", "<work>", "</work>",
    "[START_SUP]", "[END_SUP]", "[START_SUB]", "[END_SUB]", "[START_DNA]", "[END_DNA]", "[START_AMINO]",
    "[END_AMINO]", "[START_SMILES]", "[END_SMILES]", "[START_I_SMILES]", "[END_I_SMILES]",
)  # fmt: skip
"""Citations, working memory, and what frames sequences and formulas: Taylor et al. 2022, section 3.1."""


def _with(marks: tuple[str, ...], *steps: Any) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_str(make.tokenizer_json())
    backend.add_special_tokens([tokenizers.AddedToken(mark, normalized=False) for mark in marks])
    if steps:
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*steps, backend.pre_tokenizer])
    return from_json(backend.to_str())


@pytest.mark.row("m-galactica", "mechanism", claims=(2,))
def test_galactica_s_special_tokens_come_back_and_are_one_token_each() -> None:
    made = _with(GALACTICA, tokenizers.pre_tokenizers.Digits(individual_digits=True))
    text = "".join(f"{mark}a 12{mark}" for mark in GALACTICA)
    ids = made.encode(text, special=True)
    assert made.decode(ids, special=True) == text
    for mark in GALACTICA:
        assert made.encode(mark, special=True) == [made.special_tokens[mark]]
        assert made.is_special(made.special_tokens[mark])
        assert made.decode(made.encode(mark, special=False)) == mark
        assert made.special_tokens[mark] not in made.encode(mark, special=False), "users cannot write them"


INFILL = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<|endoftext|>")


@pytest.mark.row("m-starcoder", "mechanism", claims=(2,))
def test_starcoder_s_infill_prompt_reaches_the_model_as_its_three_marks_around_the_code() -> None:
    """A prompt of text completions is taken as it is, its marks being control tokens."""
    from chat_support import ask, tiny_files
    from pentad.model.backends.codec import ChatCodec

    made = _with(INFILL)
    codec = ChatCodec(tiny_files(tokenizer=made), context_length=1024, seeds=lambda: 1, clock=lambda: 0.0)
    prompt = "<fim_prefix>def f(a):\n    <fim_suffix>\n    return b\n<fim_middle>"
    ids = list(codec.prepare(ask(text=prompt)).prompt)
    control = [made.token(id) for id in ids if made.is_special(id)]
    assert [mark for mark in control if mark in INFILL] == ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    assert made.decode(ids, special=True).endswith(prompt)
    first, second = (
        ids.index(made.special_tokens["<fim_suffix>"]),
        ids.index(made.special_tokens["<fim_middle>"]),
    )
    assert made.decode(ids[first + 1 : second]) == "\n    return b\n"


@pytest.mark.row("m-baichuan", "mechanism", claims=(2,))
def test_a_vocabulary_without_numbers_of_several_digits_cuts_them_apart() -> None:
    """SentencePiece itself made the file; Baichuan's differs by its pieces alone, none of several digits."""
    folder = pathlib.Path(__file__).parents[1] / "data" / "sentencepiece"
    data = (folder / "bpe.model").read_bytes()
    made = from_sentencepiece(data, added={}, settings={"add_prefix_space": False}, source="bpe")
    assert not [id for id in range(made.vocab_size) if re.fullmatch(r"▁?\d\d+", made.token(id))]
    pieces = [made.token(id) for id in made.encode("12345", special=False)]
    assert pieces == list("12345")
