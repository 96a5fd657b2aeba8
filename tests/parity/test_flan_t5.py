"""Flan-T5-small's real weights: logits, greedy answers, tokens and HTTP against the reference code."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import tokenizers
import torch
import transformers

from encoder_decoders import Part, step
from evidence.plugin import Measure
from gateway_support import live, model_service
from onnx_models import write_flan_folder
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from tokenizer_texts import TEXTS

END, TOKENS, MODEL = frozenset({1}), 24, "flan-t5-small"
PROMPTS = (
    "translate English to German: How old are you?",
    "translate English to French: The house is wonderful.",
    "translate German to English: Ich habe keine Zeit.",
    "What is the capital of France?",
    "Is the following sentence positive or negative? I loved this film.",
    "Is the following sentence positive or negative? The food was cold and the waiter rude.",
    "summarize: The quick brown fox jumps over the lazy dog near the river bank, and the dog sleeps on.",
    "Write a title: my Python script fails with a KeyError when it parses the answer of a server",
    "Write a title: how do I rebase a branch on main without losing my changes",
    "Answer the question: what do bees make?",
    "Premise: A man plays a guitar. Hypothesis: A man makes music. Does the premise entail it?",
    "Which word does not belong: apple, pear, hammer, plum?",
    "Q: If I have three apples and eat one, how many are left? A:",
    "cola sentence: The boys is playing in a garden.",
    "Continue the story: Once upon a time there was a king who",
    "Name the colour of the sky on a clear day.",
    "Extract the city: Anna moved from Lyon to a village last year.",
    "stsb sentence1: A dog runs. sentence2: An animal is running.",
    "Fix the grammar: she go to school every days",
    "What is 12 plus 30?",
    "Which is larger, an elephant or a mouse?",
    "a " * 150 + "?",
)


@pytest.fixture(scope="module")
def folder(flan_graphs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made: pathlib.Path = tmp_path_factory.mktemp("flan") / MODEL
    write_flan_folder(flan_graphs, made)
    return made


@pytest.fixture(scope="module")
def model(folder: pathlib.Path) -> Any:
    return transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


@pytest.fixture(scope="module")
def answers(model: Any, tokenizer: tokenizers.Tokenizer) -> dict[str, list[int]]:
    """What the reference draws greedily for each prompt, its end included."""
    found = {}
    for prompt in PROMPTS:
        with torch.inference_mode():
            ids = torch.tensor([tokenizer.encode(prompt).ids])
            drawn = model.generate(ids, max_new_tokens=TOKENS, num_beams=1, do_sample=False)
        found[prompt] = drawn[0, 1:].tolist()
    return found


@pytest.fixture(scope="module")
def runner(folder: pathlib.Path) -> Iterator[TorchRunner]:
    files = open_model(folder)
    yield TorchRunner.load(files.spec, files.weights, num_blocks=400, dtype="float32", threads=1)
    files.close()


@pytest.mark.row("m-t5", "effect")
@pytest.mark.row("m-flan-t5", "effect", claims=(1,))
def test_logits_of_real_weights_equal_the_reference(
    model: Any,
    runner: TorchRunner,
    tokenizer: tokenizers.Tokenizer,
    answers: dict[str, list[int]],
    measured: Measure,
) -> None:
    worst = 0.0
    for prompt in PROMPTS:
        source, text = tokenizer.encode(prompt).ids, [0, *answers[prompt][:-1]]
        blocks = -(-len(source) // 16)
        own = {"source_blocks": range(blocks), "blocks": range(blocks, blocks + 2)}
        found = runner.logits(step([Part(source=source, new=text, cached=0, **own)]))  # type: ignore[arg-type]
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([text])).logits[0]
        worst = max(worst, float(np.abs(found - wanted.numpy()).max()))
    measured("largest difference of logits", worst, at_most=1e-3)


@pytest.mark.row("m-t5", "effect", claims=(2,))
@pytest.mark.row("m-flan-t5", "effect")
def test_greedy_answers_of_real_weights_equal_the_reference(
    runner: TorchRunner,
    tokenizer: tokenizers.Tokenizer,
    answers: dict[str, list[int]],
    measured: Measure,
) -> None:
    """All prompts beside each other in one engine. They are weights of T5's form of release 1.1, as those of
    t5-small cannot be had."""
    asked = [
        token_request(f"r{i}", (0,), TOKENS, source=tuple(tokenizer.encode(prompt).ids), end_tokens=END)
        for i, prompt in enumerate(PROMPTS)
    ]
    found = run(toy_engine(Sarathi(), runner=runner, max_batch_tokens=64, max_sequences=6), *asked)
    equal = sum(found[f"r{i}"].tokens == answers[prompt] for i, prompt in enumerate(PROMPTS))
    measured("prompts with the reference's tokens", equal, at_least=len(PROMPTS))
    assert len({tuple(answer) for answer in answers.values()}) > 15, "alike answers prove nothing"


def test_texts_are_cut_as_the_reference_cuts_them(
    folder: pathlib.Path, tokenizer: tokenizers.Tokenizer
) -> None:
    files = open_model(folder)
    for text in (*PROMPTS, *TEXTS):
        wanted = tokenizer.encode(text, add_special_tokens=False).ids
        assert files.tokenizer.encode(text, special=False) == wanted, text
    files.close()


def test_a_server_answers_prompts_and_messages_with_the_references_words(
    folder: pathlib.Path, tokenizer: tokenizers.Tokenizer, answers: dict[str, list[int]]
) -> None:
    settings = EngineSettings(kv_bytes=64 << 20, threads=1, weight_dtype="float32", check_invariants=True)
    backend = local_backend(open_model(folder, name=MODEL), settings)
    with (
        live(Services(models=model_service(backend, name=MODEL))) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client,
    ):
        for prompt in PROMPTS[:6]:
            wanted = tokenizer.decode(answers[prompt]).strip()
            greedy: Any = {"model": MODEL, "temperature": 0, "max_tokens": TOKENS}
            answer = client.completions.create(prompt=prompt, **greedy)
            assert answer.choices[0].text.strip() == wanted
            assert answer.choices[0].finish_reason == ("stop" if answers[prompt][-1] in END else "length")
            chat = client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **greedy)
            assert chat.choices[0].message.content.strip() == wanted
            chunks = client.completions.create(prompt=prompt, stream=True, **greedy)
            assert "".join(c.choices[0].text for c in chunks if c.choices).strip() == wanted
    asyncio.run(backend.close())
