"""The name table: family and name to "module:Attribute" or "module", imported on use.

Nothing is imported when the table is read, so the CLI, the docs and the tests can list every
strategy at no cost. Each layer adds its families in its own `registry` section below.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pentad.errors import UnknownName

_TABLE: dict[str, dict[str, str]] = {
    # resource layer
    "scheduler": {
        "fcfs": "pentad.resource.scheduling.fcfs:Fcfs",
        "sarathi": "pentad.resource.scheduling.sarathi:Sarathi",
    },
    "placement": {
        "single": "pentad.resource.placement.single:SingleDevice",
        "uniform": "pentad.resource.placement.uniform:UniformPipeline",
    },
    # execution layer: who runs a step
    "runner": {
        "native": "pentad.execution.native.runner:NativeRunner",
        "torch": "pentad.execution.torch.runner:TorchRunner",
    },
    # execution layer: what times the primitives of a runner
    "probe": {
        "native": "pentad.execution.native.probe:NativeProbe",
        "torch": "pentad.execution.torch.probe:TorchProbe",
    },
    "encoder": {
        "native": "pentad.execution.native.encoder:NativeEncoder",
        "torch": "pentad.execution.torch.encoder:TorchEncoder",
    },
    # model layer: architecture, as files name it, to its mapping
    "model_family": {
        "llama": "pentad.model.families.llama:FAMILY",
        "mistral": "pentad.model.families.llama:FAMILY",
        "qwen2": "pentad.model.families.qwen2:FAMILY",
        "bert": "pentad.model.families.bert:FAMILY",
        "gpt_bigcode": "pentad.model.families.gpt_bigcode:FAMILY",
        "starcoder": "pentad.model.families.gpt_bigcode:FAMILY",
    },
    "model_source": {
        "pypi": "pentad.model.sources.pypi:PypiSource",
        "hf": "pentad.model.sources.hub:HubSource",
        "path": "pentad.model.sources.local:LocalSource",
    },
    "backend": {
        "engine": "pentad.model.backends.engine:EngineBackend",
        "openai": "pentad.model.backends.openai:OpenAIBackend",
        "llamacpp": "pentad.model.backends.llamacpp:LlamaCppBackend",
    },
    "transform": {
        "kv-pooling": "pentad.model.transforms.kv_pooling:KVPooling",
    },
    "speculator": {
        "ngram": "pentad.model.speculation.ngram:NGram",
        "draft": "pentad.model.speculation.draft:Draft",
        "specinfer": "pentad.model.speculation.specinfer:SpecInfer",
        "sequoia": "pentad.model.speculation.sequoia:Sequoia",
    },
    "router": {
        "fixed": "pentad.model.routing.fixed:Fixed",
    },
    "tool_format": {
        "hermes": "pentad.model.toolcalls.hermes:Hermes",
        "mistral": "pentad.model.toolcalls.mistral:Mistral",
        "llama3_json": "pentad.model.toolcalls.llama3_json:Llama3Json",
    },
    # agent layer
    "planner": {
        "react": "pentad.agent.planning.react:React",
    },
    "memory": {
        "window": "pentad.agent.memory.window:Window",
        "store": "pentad.agent.memory.store:LongTerm",
    },
    "tool": {
        "calculator": "pentad.agent.tools.builtin.calculator:build",
        "calendar": "pentad.agent.tools.builtin.calendar:build",
        "question_answering": "pentad.agent.tools.builtin.question_answering:build",
        "search": "pentad.agent.tools.builtin.search:build",
        "translation": "pentad.agent.tools.builtin.translation:build",
        "remember": "pentad.agent.tools.builtin.remembering:build_remember",
        "recall": "pentad.agent.tools.builtin.remembering:build_recall",
    },
}

TABLE: Mapping[str, Mapping[str, str]] = MappingProxyType(_TABLE)


def known(family: str) -> tuple[str, ...]:
    """The registered names of a family, in table order. Raises UnknownName for no such family."""
    if family not in _TABLE:
        raise UnknownName(f"unknown family {family!r}", hint=f"known families: {', '.join(_TABLE)}")
    return tuple(_TABLE[family])


def load(family: str, name: str) -> Any:
    """The class, function or module registered as `name`; its module is imported now.

    Raises:
        UnknownName: no such family or name; the hint lists the known ones.
    """
    names = known(family)
    if name not in names:
        raise UnknownName(f"unknown {family} {name!r}", hint=f"known: {', '.join(names)}", param=family)
    path, _, attribute = _TABLE[family][name].partition(":")
    module = importlib.import_module(path)
    return getattr(module, attribute) if attribute else module
