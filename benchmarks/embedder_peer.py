"""One peer of `embedders.py`, run by the Python of `scripts/peers embedders`. Speaks JSON lines.

    python embedder_peer.py onnxruntime|sentence-transformers MODEL_FOLDER THREADS

A line {"texts": [...]} is answered by {"seconds": ..., "tokens": ..., "vectors": [[...]]} and `vectors`
are left out where `keep` is false. The first line out says which version answers.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

BATCH = 32
Embed = Callable[[Sequence[str]], Any]


def sentence_transformers(folder: pathlib.Path, threads: int) -> tuple[str, Embed]:
    """As its users call it."""
    import sentence_transformers as library
    import torch

    torch.set_num_threads(threads)
    model = library.SentenceTransformer(str(folder), device="cpu")

    def embed(texts: Sequence[str]) -> Any:
        return model.encode(list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

    return f"{library.__version__}, PyTorch {torch.__version__}, float32", embed


def onnxruntime(folder: pathlib.Path, threads: int) -> tuple[str, Embed]:
    """The model's graph as PyTorch exports it, optimised by ONNX Runtime, texts in batches by length."""
    import numpy as np
    import onnxruntime as library
    from tokenizers import Tokenizer

    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as scratch:
        graph = pathlib.Path(scratch) / "model.onnx"
        export(folder, graph)
        session = library.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: Any = None
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            rows = tokenizer.encode_batch([texts[i] for i in places])
            ids = np.array([row.ids for row in rows], np.int64)
            mask = np.array([row.attention_mask for row in rows], np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})[0]
            means = (hidden * mask[:, :, None]).sum(1)
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            if found is None:
                found = np.empty((len(texts), means.shape[1]), np.float32)
            found[places] = means
        return found

    return f"{library.__version__}, float32", embed


def export(folder: pathlib.Path, graph: pathlib.Path) -> None:
    """The encoder as an ONNX graph with free batch and length."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class Encoder(torch.nn.Module):
        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    given = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in range(3))
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    program = torch.onnx.export(
        Encoder().eval(),
        given,
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["hidden"],
        dynamic_shapes=(free, free, free),
        dynamo=True,
        external_data=False,
    )
    assert program is not None
    program.save(str(graph))


PEERS = {"onnxruntime": onnxruntime, "sentence-transformers": sentence_transformers}


def main() -> None:
    name, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    out, sys.stdout = sys.stdout, sys.stderr
    version, embed = PEERS[name](folder, threads)
    print(json.dumps({"version": version}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        vectors = embed(asked["texts"])
        answer: dict[str, Any] = {"seconds": time.perf_counter() - began}
        if asked.get("keep"):
            answer["vectors"] = vectors.tolist()
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
