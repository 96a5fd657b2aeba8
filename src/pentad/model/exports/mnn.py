"""MNN-LLM's folders, and the command that makes them."""

from __future__ import annotations

import pathlib
import shlex

from pentad.content import MediaKind
from pentad.errors import BadModelFile
from pentad.model.exports.base import Exported, manifest, part
from pentad.ranges import in_range


def read_mnn(path: pathlib.Path) -> Exported:
    """Source: MNN, docs/transformers/llm: config.json, llm_config.json and the files that they name."""
    if not path.is_dir():
        command = shlex.join(mnn_conversion("MODEL", str(path)))
        raise BadModelFile(f"{path} is no folder", hint=f"make it with: {command}")
    config, model = manifest(path, "config.json"), manifest(path, "llm_config.json")
    graph, weights = config.get("llm_model", "llm.mnn"), config.get("llm_weight", "llm.mnn.weight")
    size = part(path, graph) + part(path, weights)
    tokenizer = "tokenizer.mtok" if (path / "tokenizer.mtok").is_file() else "tokenizer.txt"
    part(path, config.get("tokenizer_file", tokenizer))
    if not model.get("tie_embeddings"):
        size += part(path, config.get("embedding_file", "embeddings_bf16.bin"))
    media: set[MediaKind] = set()
    if model.get("is_visual"):
        part(path, config.get("visual_model", "visual.mnn"))
        media.add("image")
    if model.get("is_audio"):
        part(path, config.get("audio_model", "audio.mnn"))
        media.add("audio")
    return Exported(
        format="mnn",
        size_bytes=size,
        quantization=str(config.get("precision", "low")),
        media=frozenset(media),
    )


def mnn_conversion(source: str, target: str, *, bits: int = 4, block: int = 64) -> tuple[str, ...]:
    """The command by which `llmexport` makes such a folder of a Hugging Face model.

    Args:
        bits: of a weight, 1 to 8.
        block: weights with a scale in common; 0: those of a row.
    """
    in_range("bits", bits, least=1, most=8)
    in_range("block", block, least=0, most=4096)
    options = ("--export", "mnn", "--quant_bit", str(bits), "--quant_block", str(block))
    return ("llmexport", "--path", source, "--dst_path", target, *options)
