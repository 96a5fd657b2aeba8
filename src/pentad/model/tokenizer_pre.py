"""How byte-level vocabularies split a text before they merge, by the names that GGUF files give to it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3: Final = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN2: Final = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35: Final = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_NO_WORD: Final = r"[^\r\n\p{L}\p{N}]?"
_MARKS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN: Final = rf"{_NO_WORD}{_UPPER}*{_LOWER}+|{_NO_WORD}{_UPPER}+{_LOWER}*|\p{{N}}|{_MARKS}|{_SPACES}"
_GPT4O: Final = (
    rf"{_NO_WORD}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_NO_WORD}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
)
_HAN_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_HAN_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI: Final = (
    rf"[\p{{Han}}]+|{_NO_WORD}{_HAN_UPPER}*{_HAN_LOWER}+{_CONTRACTION}?"
    rf"|{_NO_WORD}{_HAN_UPPER}+{_HAN_LOWER}*{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_BAILING: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED: Final = rf"{_CONTRACTION}|{_NO_WORD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_DEEPSEEK3: Final = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)

SPLITS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
        "gpt-2": (_GPT2,),
        "digits": (r"\p{N}", _GPT2),
        "llama3": (_LLAMA3,),
        "cl100k": (_LLAMA3,),
        "qwen2": (_QWEN2,),
        "qwen35": (_QWEN35,),
        "tekken": (_TEKKEN,),
        "gpt-4o": (_GPT4O,),
        "kimi-k2": (_KIMI,),
        "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"),
        "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
        "deepseek-v3": _DEEPSEEK3,
        "bailing": (_BAILING,),
        "seed": (_SEED,),
        "bloom": (_BLOOM,),
        "viking": (_BLOOM, r"\p{N}"),
        "superbpe": (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    }
)
"""Split patterns, applied one after another to the pieces that the one before left."""

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "default": "default",
        "gpt-2": "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de jina-v2-code roberta-bpe mpt "
        "olmo jais",
        "digits": "smollm starcoder refact command-r codeshell exaone minerva-7b",
        "llama3": "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        "cl100k": "smaug-bpe dbrx chatglm-bpe glm4",
        "qwen2": "qwen2 stablelm2 deepseek-r1-qwen hunyuan megrez",
        "qwen35": "qwen35",
        "tekken": "tekken",
        "gpt-4o": "gpt-4o llama4 kanana2",
        "kimi-k2": "kimi-k2",
        "falcon": "falcon",
        "deepseek-coder": "deepseek-coder",
        "deepseek-v3": "deepseek-v3 hunyuan-dense",
        "bailing": "bailingmoe bailingmoe2 llada-moe",
        "seed": "seed-coder",
        "bloom": "bloom poro-chat gpt3-finnish",
        "viking": "viking",
        "superbpe": "superbpe",
    }
)
PRE_TOKENIZERS: Final[Mapping[str, str]] = MappingProxyType(
    {name: splits for splits, names in _NAMES.items() for name in names.split()}
)
"""`tokenizer.ggml.pre` to the splits it stands for."""

NFC: Final = frozenset({"qwen2", "qwen35"})
"""Splits whose publishers compose characters (NFC) first."""
WHOLE_WORDS: Final = frozenset({"llama3", "tekken"})
"""Splits whose publishers take a piece that is a token as it is, without merging up to it."""
