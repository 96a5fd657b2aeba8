"""What a KV policy cannot be combined with, and which words say so."""

from __future__ import annotations

from typing import Final

from pentad.errors import Incompatible
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.runner import HeadRunner, Runner
from pentad.execution.spec import ModelSpec

_KEEP_ALL: Final = "set --kv-policy keep-all"


def check_policy(runner: Runner, policy: KVPolicy, *, speculation: bool) -> None:
    """Raises Incompatible for a policy that drops entries and what it cannot be combined with."""
    check_combination(policy, runner.spec, speculation=speculation)
    name, model = policy.name, runner.spec.name
    if not isinstance(runner, HeadRunner):
        raise Incompatible(
            f"{type(runner).__name__} cannot drop KV entries, as policy {name!r} asks",
            hint=_KEEP_ALL,
            param="kv_policy",
        )
    if "attention-scores" in policy.needs and not runner.keeps_scores:
        raise Incompatible(
            f"KV policy {name!r} needs attention scores, which {model!r} was loaded without",
            hint=_KEEP_ALL,
            param="kv_policy",
        )


def check_combination(policy: KVPolicy, spec: ModelSpec, *, speculation: bool) -> None:
    """Raises Incompatible for a model or a feature that the policy cannot be combined with."""
    if speculation and "speculation" in policy.excludes:
        raise Incompatible(
            f"KV policy {policy.name!r} cannot be combined with speculation",
            hint="set --speculation none or --kv-policy keep-all",
            param="kv_policy",
        )
    if spec.narrowest_window is not None:
        raise Incompatible(
            f"KV policy {policy.name!r} knows no windows, and model {spec.name!r} attends to some",
            hint=_KEEP_ALL,
            param="kv_policy",
        )
    if not spec.by_head:
        raise Incompatible(
            f"KV policy {policy.name!r} drops keys and values of heads, which not all layers of model "
            f"{spec.name!r} keep alike",
            hint=_KEEP_ALL,
            param="kv_policy",
        )
    if not spec.plain_scores:
        raise Incompatible(
            f"KV policy {policy.name!r} knows plain scores alone, model {spec.name!r} weighs slots otherwise",
            hint=_KEEP_ALL,
            param="kv_policy",
        )
