"""BioBERT as it is published: a BERT for pre-training with cased word pieces, loaded as an encoder of texts.

Its weights cannot be had here, so they are random and few: that it loads and computes as the reference is
shown, and not that its vectors tell biomedical texts apart better than those of a general encoder.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from encoder_models import ENCODERS, V
from pentad.model.embedding import LocalEmbedder

TEXTS = ("BRCA1 binds p53", "The patient has a fever", "brca1")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def cased_pieces() -> tokenizers.Tokenizer:
    """Word pieces of single characters, upper and lower case apart, framed as BERT's."""
    letters = sorted({letter for text in TEXTS for letter in text if letter != " "})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    assert len(vocabulary) <= V
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    return made


@pytest.mark.row("het-biobert", "mechanism", claims=(1,))
def test_a_bert_for_pre_training_loads_as_an_encoder_and_gives_the_reference_s_mean(
    tmp_path: pathlib.Path,
) -> None:
    model, pieces = ENCODERS["bert"].build("ForPreTraining"), cased_pieces()
    model.save_pretrained(tmp_path)
    pieces.save(str(tmp_path / "tokenizer.json"))
    embedder = LocalEmbedder.open(tmp_path, name="biobert", kernels="torch")
    found = np.array(embedder.embed(TEXTS))
    assert embedder.dimensions == 64
    for text, vector in zip(TEXTS, found, strict=True):
        ids = torch.tensor([pieces.encode(text).ids])
        with torch.inference_mode():
            mean = model.bert(ids).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)
    # Upper and lower case are apart, as names of genes want it.
    assert pieces.encode("BRCA1").ids != pieces.encode("brca1").ids
    assert found[0] @ found[2] < 0.999
