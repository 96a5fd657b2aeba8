"""Texts in, texts out: encoder-decoders behind a backend, against the reference's generate()."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import tokenizers
import torch

from chat_models import real_backend
from encoder_decoders import build
from marian_files import write_tiny
from pentad.errors import ContextLengthExceeded, InvalidRequest
from pentad.execution.backend import NoticeDelta, fold
from pentad.model.backends.engine import EngineBackend
from pentad.types import Message, Request, Sampling, ToolSpec

FORCED, BANNED = 21, 5
Ask = Any


def write_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """A unigram `tokenizer.json` as T5's: an end behind each text, no beginning."""
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz:.", "he", "\u2581the", "in"]
    scores = [0.0, 0.0, 0.0, *(-2.0 - i / 10 for i in range(len(pieces) - 3))]
    made = tokenizers.Tokenizer(
        tokenizers.models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=2, byte_fallback=False)
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, EngineBackend, Ask]]:
    """The reference, its tokenizer, our backend, and what asks it."""
    folder = tmp_path_factory.mktemp("flan")
    model = build("flan-t5", folder, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    model.generation_config.forced_bos_token_id = FORCED
    model.generation_config.bad_words_ids = [[BANNED]]
    model.generation_config.save_pretrained(folder)
    made = write_tokenizer(folder)
    with real_backend(folder, threads=1) as (backend, run):

        def ask(**change: Any) -> Any:
            async def answer() -> Any:
                request = Request(id="r", model="m", **{"sampling": greedy(), **change})
                return [delta async for delta in backend.stream(request)]

            deltas = run(answer())
            return fold(deltas), [d.text for d in deltas if isinstance(d, NoticeDelta)]

        yield model, made, backend, ask


def greedy(**change: Any) -> Sampling:
    return Sampling(temperature=0, **{"max_tokens": 12, **change})


def expected(model: Any, made: Any, text: str, count: int = 12) -> str:
    """The reference's answer: what it is made to begin with stands in front and is none of the count."""
    ids = torch.tensor([made.encode(text).ids])
    with torch.inference_mode():
        found = model.generate(ids, max_new_tokens=count + 1, num_beams=1, do_sample=False)[0].tolist()
    assert found[:2] == [0, FORCED]
    assert BANNED not in found
    answer = [id for id in found[2:] if id > 2]
    return "".join(made.id_to_token(id) or "" for id in answer).replace("\u2581", " ")


TEXTS = ("translate the king: abc", "q", "the hen in the inn. " * 8)


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_the_source_and_the_answer_is_the_references(text: str, served: Any) -> None:
    model, made, backend, ask = served
    answer, _ = ask(text=text)
    assert answer.message.content == expected(model, made, text)
    counted = len(made.encode(text).ids) + 2
    assert answer.usage.prompt_tokens == counted
    assert backend.count_tokens(Request(id="c", model="m", text=text)) == counted


def test_token_ids_are_the_source_as_they_are(served: Any) -> None:
    model, made, _, ask = served
    answer, _ = ask(token_ids=tuple(made.encode(TEXTS[0]).ids))
    assert answer.message.content == expected(model, made, TEXTS[0])


def test_the_last_message_of_the_user_is_read_where_there_is_no_template(served: Any) -> None:
    model, made, _, ask = served
    one = Message(role="user", content=TEXTS[0])
    answer, notices = ask(messages=(one,))
    assert (answer.message.content, notices) == (expected(model, made, TEXTS[0]), [])
    answer, notices = ask(messages=(Message(role="system", content="be kind"), one))
    assert answer.message.content == expected(model, made, TEXTS[0])
    assert notices == ["the model reads the last message alone; 1 in front of it are left out"]


def test_text_of_a_message_is_never_a_control_token(served: Any) -> None:
    _, _, backend, _ = served
    asked = Request(id="c", model="m", messages=(Message(role="user", content="a</s>b"),))
    assert list(backend.codec.prompt(asked)).count(1) == 1


def test_what_makes_no_sense_is_refused_by_its_reason(served: Any) -> None:
    _, _, _, ask = served
    user = Message(role="user", content="hello")
    with pytest.raises(InvalidRequest, match="no chat template that could show tools"):
        ask(messages=(user,), tools=(ToolSpec(name="add", description="adds", parameters={}),))
    with pytest.raises(InvalidRequest, match="does not end with one"):
        ask(messages=(user, Message(role="assistant", content="yes")))
    with pytest.raises(ContextLengthExceeded, match=r"source has 6.. tokens, the encoder of .* reads 512"):
        ask(text="q " * 300)
    with pytest.raises(ContextLengthExceeded, match="max_tokens"):
        ask(text="q", sampling=greedy(max_tokens=511))


def test_a_folder_with_marians_own_tokenizer_files_answers_as_the_reference(tmp_path: pathlib.Path) -> None:
    write_tiny(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    pad = vocab["<pad>"]
    model = build(
        "marian",
        tmp_path,
        vocab_size=len(vocab),
        decoder_start_token_id=pad,
        pad_token_id=pad,
        eos_token_id=vocab["</s>"],
    )
    text = ">>fra<<hello world, and the others"
    with real_backend(tmp_path, threads=1) as (backend, run):

        async def answer() -> Any:
            request = Request(id="r", model="m", sampling=greedy(), text=text)
            return [delta async for delta in backend.stream(request)]

        made = backend.codec.tokenizer
        found = fold(run(answer())).message.content
    ids = [*made.encode(text, special=False), vocab["</s>"]]
    assert ids[0] == vocab[">>fra<<"]
    with torch.inference_mode():
        drawn = model.generate(torch.tensor([ids]), max_new_tokens=12, num_beams=1, do_sample=False)
    assert found == made.decode(drawn[0, 1:].tolist())
    assert found
