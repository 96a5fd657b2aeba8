"""The peers that a model can be compared with."""

from __future__ import annotations

from pentad.application.bench.peers.base import Peer
from pentad.application.bench.peers.llama import LlamaCpp
from pentad.application.bench.peers.worker import Worker
from pentad.errors import InvalidRequest
from pentad.model.loading import ModelFiles


def known_peers(files: ModelFiles, only: str | None = None) -> list[Peer]:
    """Every peer that reads this model, or those named in `only`, with commas.

    Raises:
        InvalidRequest: a name that is none, or a model that is no GGUF file.
    """
    if files.format != "gguf":
        raise InvalidRequest(
            f"model {files.name!r} is stored as {files.format}; the peers read GGUF files",
            hint="set --model to a .gguf file",
            param="model",
        )
    file = files.path
    peers: list[Peer] = [
        LlamaCpp("llama.cpp", file),
        LlamaCpp("llama.cpp-q4_0", file, requantize="Q4_0"),
        LlamaCpp("llama.cpp-avx2", file, cpus=("avx2",)),
        Worker("openvino", "genai_worker.py", "as filed", file, files.spec.vocab_size),
        Worker("vllm", "vllm_worker.py", "bfloat16", file, files.spec.vocab_size),
    ]
    if only is None:
        return peers
    by_name = {peer.name: peer for peer in peers}
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in by_name:
            raise InvalidRequest(
                f"peer {name!r} is not known", hint=f"there are: {', '.join(by_name)}", param="only"
            )
    return [by_name[name] for name in names]
