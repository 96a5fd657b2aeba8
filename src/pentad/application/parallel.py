"""A model that several processes compute together, as settings or a plan's file ask for it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from pentad.application.config import EngineSettings
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.ranks.layout import Layout
from pentad.execution.runner import Runner
from pentad.json_text import parse_json
from pentad.model.loading import ModelFiles

_PLAN = ".json"


def ranked_runner(
    files: ModelFiles,
    settings: EngineSettings,
    kv_bytes: int | None,
    device: str,
    rank_lost: Callable[[], None] | None,
) -> Runner:
    """The model on as many processes as `parallel` asks for.

    Raises Incompatible for settings that one process alone can follow, and what RankedRunner raises.
    """
    from pentad.execution.ranks.runner import RankedRunner

    if settings.kernels not in ("auto", "torch"):
        raise Incompatible(
            f"kernels {settings.kernels!r} compute in one process, but parallel is {settings.parallel!r}",
            hint="set kernels to auto, or leave --parallel out",
            param="kernels",
        )
    if settings.adapters:
        raise Incompatible(
            "adapters are put to models that one process computes",
            hint="leave --parallel or --adapters out",
            param="parallel",
        )
    assert settings.parallel is not None
    return RankedRunner(
        files.spec,
        files.weights,
        read_layout(settings.parallel, files.spec.layers),
        kv_bytes=kv_bytes,
        dtype=settings.weight_dtype,
        device=device,
        threads=settings.threads,
        codec=settings.parallel_codec,
        on_lost=rank_lost,
    )


def read_layout(text: str, layers: int) -> Layout:
    """The layout written out, or that of the first replica of a plan that `plan --json` wrote.

    Raises InvalidRequest where there is none.
    """
    if not text.endswith(_PLAN):
        return Layout.parse(text, layers)
    try:
        data = parse_json(pathlib.Path(text).read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the plan {text!r} cannot be read: {error}", param="parallel") from None
    return Layout.of_plan(data)
