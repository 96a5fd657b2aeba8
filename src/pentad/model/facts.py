"""ModelFacts: what a model's files say of it, for people and for clients; nothing is loaded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pentad.execution.spec import ModelSpec
from pentad.model.files.stored_as import stored_as
from pentad.model.loading import ModelFiles
from pentad.model.stored import StoredModel
from pentad.model.toolcalls import choose_format

_REASONING_MARKS = ("<think>", "enable_thinking", "<|channel|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model as its files describe it."""

    stored: StoredModel
    spec: ModelSpec
    storage: Mapping[str, int]
    """Format of tensors in the files to the bytes in it, the most first."""
    stored_as: str
    """The same for people, by weights and with the method of quantized safetensors: `Q4_K 84%, Q6_K 16%`."""
    template: str | None
    tool_format: str
    """How it writes tool calls, by its template."""
    reasons: bool
    """Whether its template knows of reasoning."""
    end_tokens: tuple[str, ...]
    sampling: Mapping[str, float]
    modified_s: float
    """Unix time of the newest change to its files."""

    @property
    def quantization(self) -> str:
        """The format that most of its bytes are in."""
        return next(iter(self.storage), "unknown")


def facts_of(stored: StoredModel, files: ModelFiles) -> ModelFacts:
    """What the opened files of a stored model say."""
    storage: Counter[str] = Counter()
    for tensor in files.container.tensors.values():
        storage[tensor.format] += tensor.size_bytes
    template = files.chat_template
    paths = [stored.path] if stored.path.is_file() else [stored.path / name for name in stored.files]
    return ModelFacts(
        stored=stored,
        spec=dataclasses.replace(files.spec, name=stored.name),
        storage=dict(storage.most_common()),
        stored_as=stored_as(files.container),
        template=template,
        tool_format=choose_format("auto", template, files.family)[0].name,
        reasons=any(mark in (template or "") for mark in _REASONING_MARKS),
        end_tokens=tuple(files.tokenizer.token(id) for id in sorted(files.end_tokens)),
        sampling=files.sampling,
        modified_s=max((path.stat().st_mtime for path in paths if path.exists()), default=0.0),
    )


def short_count(number: float) -> str:
    """134,515,008 as 134.5M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
