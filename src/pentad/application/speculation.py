"""Speculation as the settings ask for it: the strategy, its draft models, and memory for their caches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import psutil

from pentad.application.config import EngineSettings
from pentad.choice import build
from pentad.errors import InvalidRequest
from pentad.execution.checks import check_window
from pentad.execution.runner import Runner
from pentad.execution.speculation.stage import Speculation
from pentad.model.loading import ModelFiles
from pentad.model.speculation.base import DraftStrategy, check_drafts
from pentad.model.speculation.tokens import check_tokenizer
from pentad.resource.sizing import AVAILABLE_SHARE

_log = logging.getLogger(__name__)

NONE = "none"

Load = Callable[[ModelFiles, EngineSettings], Runner]
ElementBytes = Callable[[ModelFiles, EngineSettings], float]


def make_speculation(
    settings: EngineSettings,
    target: ModelFiles,
    runner: Runner,
    drafts: Sequence[ModelFiles],
    load: Load,
    element_bytes: ElementBytes,
) -> Speculation | None:
    """What drafts for the target's engine; None where the settings ask for nothing.

    Args:
        settings: of the engine.
        target: the model that is served.
        runner: of the target.
        drafts: draft models; closed when they are loaded.
        load: makes a runner of a model.
        element_bytes: bytes of one number in that runner's KV cache.

    Raises:
        UnknownName: no such speculator.
        Incompatible: too few or too many draft models, or one with another tokenizer.
    """
    if settings.speculation.name == NONE:
        if drafts:
            raise InvalidRequest(
                f"{len(drafts)} draft models are given, but speculation is {NONE!r}",
                hint="set --speculation draft, or leave --draft-model out",
                param="draft_models",
            )
        return None
    strategy: DraftStrategy = build("speculator", settings.speculation)
    check_drafts(strategy.name, strategy.needs, len(drafts))
    for draft in drafts:
        check_tokenizer(target, draft)
        check_window(draft.spec)
    runners = []
    for draft in drafts:
        kv_bytes = _kv_bytes(draft, element_bytes(draft, settings), runner)
        _log.info("draft model %s for %s, KV cache of %s bytes", draft.name, target.name, kv_bytes)
        runners.append(load(draft, settings.model_copy(update={"kv_bytes": kv_bytes})))
        draft.close()
    return Speculation(strategy.start(target.spec.vocab_size, runners), most_tokens=settings.draft_tokens)


def _kv_bytes(draft: ModelFiles, element_bytes: float, runner: Runner) -> int:
    """As many tokens as the target's cache holds, within the share of memory that a cache may have."""
    tokens = runner.num_blocks * runner.block_size
    wanted = tokens * draft.spec.kv_bytes_per_token(element_bytes)
    return max(1 << 20, min(wanted, int(psutil.virtual_memory().available * AVAILABLE_SHARE)))
