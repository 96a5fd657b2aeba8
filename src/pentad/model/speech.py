"""How each family of models speaks: where its chat template comes from, how it writes calls and reasoning."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

TemplateSource = Literal["file", "prompt", "none"]
"""The model's own file; its file, whose template presents no tools, so that they go into the system message;
none: the published models of the family only continue text, and their fine-tunes bring a template."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What the models of a family were trained on. A model's own template decides; this is what to expect."""

    template: TemplateSource
    tools: str
    """Registered tool format, or `hermes` where the family knows none."""
    reasoning: str
    """Registered reasoning format, or `none`."""
    turn: str = ""
    """What the family's own chat templates hold around turns, and those of fine-tunes for other formats lack;
    empty where it shares ChatML with everybody."""


_BASE: Final = Speech("none", "hermes", "none")
_FAMILIES: Final = {
    "llama": Speech("file", "llama3_json", "none", "<|start_header_id|>"),
    "llama4": Speech("file", "llama4_pythonic", "none", "<|header_start|>"),
    "mistral": Speech("file", "mistral", "none", "[INST]"),
    "mixtral": Speech("file", "mistral", "none", "[INST]"),
    "ministral": Speech("file", "mistral_args", "mistral", "[INST]"),
    "mistral3": Speech("file", "mistral_args", "mistral", "[INST]"),
    "qwen2": Speech("file", "hermes", "none"),
    "qwen2_moe": Speech("file", "hermes", "none"),
    "qwen3": Speech("file", "hermes", "think"),
    "qwen3_moe": Speech("file", "hermes", "think"),
    "qwen3_next": Speech("file", "qwen3_coder", "think"),
    "qwen3_5": Speech("file", "qwen3_coder", "think"),
    "qwq": Speech("file", "hermes", "think"),
    "gemma": Speech("prompt", "hermes", "none"),
    "gemma2": Speech("prompt", "tool_code", "none", "<start_of_turn>"),
    "gemma3": Speech("prompt", "tool_code", "none", "<start_of_turn>"),
    "gemma3_text": Speech("prompt", "tool_code", "none", "<start_of_turn>"),
    "gemma4": Speech("file", "gemma", "gemma", "<|turn>"),
    "gpt_oss": Speech("file", "harmony", "harmony", "<|start|>"),
    "deepseek_v2": Speech("prompt", "hermes", "none"),
    "deepseek_v3": Speech("file", "deepseek_v31", "think", "<｜Assistant｜>"),
    "deepseek_r1": Speech("file", "deepseek_v3", "think", "<｜Assistant｜>"),
    "glm": Speech("file", "glm4", "none", "<|assistant|>"),
    "glm4": Speech("file", "glm4", "none", "<|assistant|>"),
    "glm4_moe": Speech("file", "glm45", "think", "<|assistant|>"),
    "granite": Speech("file", "granite", "granite", "<|start_of_role|>"),
    "granitemoe": Speech("file", "granite", "granite", "<|start_of_role|>"),
    "granitemoehybrid": Speech("file", "hermes", "none"),
    "phi": _BASE,
    "phi3": Speech("file", "phi4", "none", "<|assistant|>"),
    "kimi_k2": Speech("file", "kimi_k2", "think", "<|im_middle|>"),
    "cohere": Speech("file", "command_r", "none", "<|START_OF_TURN_TOKEN|>"),
    "cohere2": Speech("file", "command_r", "command_r", "<|START_OF_TURN_TOKEN|>"),
    "seed_oss": Speech("file", "seed_oss", "seed", "<seed:bos>"),
    "lfm2": Speech("file", "lfm2", "none"),
    "smollm3": Speech("file", "hermes", "think"),
    "nemotron_h": Speech("file", "qwen3_coder", "think"),
    "olmo2": Speech("prompt", "hermes", "none"),
    "stablelm": Speech("prompt", "hermes", "none"),
    "gpt2": _BASE,
    "gpt_neox": _BASE,
    "gptj": _BASE,
    "gpt_bigcode": _BASE,
    "starcoder2": _BASE,
    "opt": _BASE,
    "bloom": _BASE,
    "mpt": _BASE,
    "falcon": Speech("prompt", "hermes", "none"),
}
FAMILIES: Final = MappingProxyType(_FAMILIES)
"""Family, as configs name it in `model_type`, to its speech."""


_ALIASES: Final = {"deepseek2": "deepseek_v2", "commandr": "cohere", "granitehybrid": "granitemoehybrid"}
"""Architectures of GGUF files that are called otherwise in configs."""
_BY_PLAIN_NAME: Final = {name.replace("_", ""): name for name in FAMILIES}


def speech_of(family: str) -> Speech | None:
    """How the family speaks; None where it is not known, and only a model's own template tells.

    Args:
        family: `model_type` of a config, or the architecture that a GGUF file names.
    """
    plain = family.replace("-", "").replace("_", "").lower()
    name = _ALIASES.get(plain) or _BY_PLAIN_NAME.get(plain)
    return None if name is None else FAMILIES[name]
