"""Cross-encoders of tiny random weights against the reference code, and the route that serves them."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from starlette.applications import Starlette

from encoder_models import ENCODERS, save_gguf, write_tokenizer
from expert_models import open_folder, open_gguf
from gateway_app import call
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.services import Services
from pentad.errors import BadModelFile, ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.torch.encoder import TorchScorer
from pentad.model.embedding import LocalEmbedder
from pentad.model.loading import open_model
from pentad.model.reranking import LocalReranker
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend

QUERY = "What is pasta?"
DOCUMENTS = ["Pasta is a dish of dough", "is it", "a b c d e f g", "[CLS] [SEP] is pasta"]
SIZES = {"num_labels": 1, "initializer_range": 0.1}
Saved = tuple[Any, tokenizers.Tokenizer, pathlib.Path]


@pytest.fixture(scope="module", params=[name for name in ENCODERS if name != "nomic-bert"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp(request.param)
    model = ENCODERS[request.param].build("ForSequenceClassification", **SIZES)
    model.save_pretrained(folder)
    return model, write_tokenizer(folder), folder


def reference(model: Any, ids: list[int], types: list[int]) -> float:
    """The logit of one pair."""
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    more = {"token_type_ids": torch.tensor([types])} if typed else {}
    with torch.inference_mode():
        return float(model(torch.tensor([ids]), **more).logits[0, 0])


def plain(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    """Tokens of a text whose control tokens are text."""
    tokenizer.encode_special_tokens = True
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.row("het-arch-bert", "mechanism")
def test_scores_equal_the_reference(saved: Saved) -> None:
    model, tokenizer, folder = saved
    reranker = LocalReranker.open(folder)
    scores, tokens = reranker.score_counted(QUERY, DOCUMENTS)
    mark = {name: tokenizer.token_to_id(f"[{name}]") for name in ("CLS", "SEP")}
    query, total = [mark["CLS"], *plain(tokenizer, QUERY), mark["SEP"]], 0
    for document, score in zip(DOCUMENTS, scores, strict=True):
        second = [*plain(tokenizer, document), mark["SEP"]]
        types = [0] * len(query) + [1] * len(second)
        expected = reference(model, query + second, types)
        assert score == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-4)
        total += len(types)
    assert tokens == total
    assert max(scores) - min(scores) > 1e-3, "documents must be told apart"


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "modernbert"])
def test_gguf_files_score_as_folders_do(name: str, tmp_path: pathlib.Path) -> None:
    model = ENCODERS[name].build("ForSequenceClassification", **SIZES)
    model.save_pretrained(tmp_path)
    texts = [[4, 5, 6, 7], [9, 8, 7]]
    types = [[0] * len(text) for text in texts]
    expected = TorchScorer(*open_folder(tmp_path)).score(texts, types)
    path = save_gguf(model, ENCODERS[name], tmp_path, {"pooling_type": 4})
    np.testing.assert_allclose(TorchScorer(*open_gguf(path)).score(texts, types), expected, atol=1e-4)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("reranker")
    ENCODERS["bert"].build("ForSequenceClassification", **SIZES).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_a_config_may_ask_for_plain_logits(bert: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(bert / name)
    config = json.loads((bert / "config.json").read_text())
    said = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "sentence_transformers": said}))
    logits = LocalReranker.open(tmp_path).score_counted(QUERY, DOCUMENTS)[0]
    squashed = LocalReranker.open(bert).score_counted(QUERY, DOCUMENTS)[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), squashed, atol=1e-6)
    said = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "sentence_transformers": said}))
    with pytest.raises(BadModelFile, match="Tanh"):
        LocalReranker.open(tmp_path)


def test_pairs_that_do_not_fit_and_empty_texts_are_refused(bert: pathlib.Path) -> None:
    reranker = LocalReranker.open(bert)
    fits = "a " * (reranker.max_tokens - 6)
    reranker.score_counted("what is pasta", [fits])
    with pytest.raises(ContextLengthExceeded, match="document 1 with the query has 131 tokens"):
        reranker.score_counted("what is pasta", ["a", fits + "a"])
    with pytest.raises(InvalidRequest, match="document 0 is empty"):
        reranker.score_counted("a", [" "])
    with pytest.raises(InvalidRequest, match="the query is empty"):
        reranker.score_counted(" ", ["a"])


def test_rerankers_embedders_and_classifiers_are_not_taken_for_each_other(
    bert: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(Incompatible, match="scores texts; embeddings need an encoder"):
        LocalEmbedder.open(bert)
    ENCODERS["bert"].build("ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(Incompatible, match="has 3 labels; a reranker has one"):
        LocalReranker(open_model(tmp_path))


def app_of(folder: pathlib.Path, **settings: Any) -> Starlette:
    models = ModelService(
        {"scripted": ScriptedBackend([["Hello"]], repeat=True)},
        rerankers={"judge": LocalReranker.open(folder)},
        router=Fixed(),
    )
    return create_app(Services(models=models), GatewaySettings(**settings))


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_the_route_tells_the_best_documents_first(bert: pathlib.Path, path: str) -> None:
    asked = {"model": "judge", "query": QUERY, "documents": [*DOCUMENTS[:3], {"text": DOCUMENTS[3]}]}
    scores, tokens = LocalReranker.open(bert).score_counted(QUERY, DOCUMENTS)
    whole = call(app_of(bert), "POST", path, body=asked).json()
    order = sorted(range(len(DOCUMENTS)), key=lambda i: -scores[i])
    assert [result["index"] for result in whole["results"]] == order
    assert [result["relevance_score"] for result in whole["results"]] == [
        pytest.approx(scores[i], abs=1e-6) for i in order
    ]
    assert "document" not in whole["results"][0]
    assert (whole["model"], whole["usage"]) == ("judge", {"prompt_tokens": tokens, "total_tokens": tokens})
    asked |= {"top_n": 2, "return_documents": True}
    best = call(app_of(bert), "POST", path, body=asked).json()["results"]
    assert [result["document"]["text"] for result in best] == [DOCUMENTS[i] for i in order[:2]]
    cards = call(app_of(bert), "GET", "/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["scripted", "judge"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "scripted"}, 404, "no reranker 'scripted' here"),
        ({"documents": []}, 400, "documents"),
        ({"documents": ["a", " "]}, 400, "document 1 is empty"),
        ({"documents": ["a " * 400]}, 400, "reads at most 130 tokens"),
        ({"top_n": 0}, 400, "top_n"),
        ({"query": ""}, 400, "query"),
    ],
)
def test_the_route_refuses_what_it_cannot_do(
    bert: pathlib.Path, changes: dict[str, Any], status: int, message: str
) -> None:
    asked = {"model": "judge", "query": QUERY, "documents": DOCUMENTS} | changes
    answer = call(app_of(bert), "POST", "/v1/rerank", body=asked)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_the_route_needs_the_key_and_a_reranker(bert: pathlib.Path) -> None:
    asked = {"query": QUERY, "documents": DOCUMENTS}
    locked = app_of(bert, api_keys=("secret",))
    assert call(locked, "POST", "/v1/rerank", body=asked).status_code == 401
    headers = {"authorization": "Bearer secret"}
    assert call(locked, "POST", "/v1/rerank", body=asked, headers=headers).status_code == 200
    models = ModelService({"scripted": ScriptedBackend([["Hello"]], repeat=True)}, router=Fixed())
    none = create_app(Services(models=models), GatewaySettings())
    answer = call(none, "POST", "/v1/rerank", body=asked)
    assert answer.status_code == 404
    assert "no reranker is served here" in answer.json()["error"]["message"]
