"""What `pentad show` tells of a model: what it is, what it takes, where it runs here, and how fast."""

from __future__ import annotations

from typing import Any, Final

from pentad.application.config import EngineSettings, Settings
from pentad.application.model_memory import encoder_need, engine_need, models_budget, scorer_need
from pentad.application.runners import choose, engine_of, kv_element_bytes
from pentad.errors import PentadError
from pentad.execution.native.choice import RunnerChoice
from pentad.execution.native.forms import forms_of
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec_summary import spec_summary
from pentad.model.embedding import choose_encoder
from pentad.model.facts import ModelFacts, facts_of
from pentad.model.geometries import GEOMETRIES
from pentad.model.geometries.scaling import best_for_parameters
from pentad.model.loading import ModelFiles
from pentad.model.reranking import choose_scorer
from pentad.model.stored import StoredModel
from pentad.resource import profile as profiles
from pentad.resource.cost import StepCost
from pentad.resource.model_slot import MemoryNeed
from pentad.resource.step_shape import StepShape

CONTEXT: Final = 1024
"""Tokens before the one that is counted and predicted."""
_CHUNK: Final = 512


def model_summary(stored: StoredModel, files: ModelFiles, settings: Settings) -> dict[str, Any]:
    """Everything as plain values; what cannot be known here says why under `here.trouble`."""
    facts, spec = facts_of(stored, files), files.spec
    return {
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "attention": spec.attention,
        "context_tokens": spec.context_length,
        "encoder_decoder": spec.encoder is not None,
        "source_tokens": spec.source_length or None,
        "flops_per_token": spec.flops(1, CONTEXT),
        "kv_bytes_per_token_f32": spec.kv_bytes_per_token(4),
        "stored_as": facts.stored_as,
        "storage": dict(facts.storage),
        "unread_media": list(files.unread_media) or None,
        "speech": _speech(facts),
        "sampling": dict(facts.sampling),
        "here": _here(files, settings, engine_of(settings.engine, stored.name)),
        "spec": spec_summary(spec),
    }


def geometry_summary(name: str) -> dict[str, Any]:
    """The same of a geometry whose weights nobody has, and the text that it is best trained on."""
    geometry = GEOMETRIES[name]
    spec = geometry.spec(name)
    training = best_for_parameters(spec.parameters)
    return {
        "name": name,
        "parameters": spec.parameters,
        "published_parameters": round(geometry.published),
        "source": geometry.source,
        "attention": spec.attention,
        "context_tokens": spec.context_length,
        "flops_per_token": spec.flops(1, CONTEXT),
        "kv_bytes_per_token_f32": spec.kv_bytes_per_token(4),
        "best_training_tokens": round(training.tokens),
        "best_training_flops": training.flops,
        "spec": spec_summary(spec),
    }


def _speech(facts: ModelFacts) -> dict[str, Any]:
    return {
        "chat_template": facts.template is not None,
        "tool_format": facts.tool_format if facts.template is not None else None,
        "reasons": facts.reasons,
        "end_tokens": list(facts.end_tokens),
    }


def _here(files: ModelFiles, settings: Settings, engine: EngineSettings) -> dict[str, Any]:
    """Who computes it on this machine, how it is held, what that takes, and the speed that is predicted."""
    budget = models_budget(settings)
    found: dict[str, Any] = {"memory_budget_bytes": budget}
    try:
        if files.spec.head is not None:
            return found | _generator_here(files, engine, budget) | _speed(files, settings, engine)
        if files.spec.classifier is not None:
            return found | _held(files, choose_scorer(files), scorer_need(files), budget)
        chosen = choose_encoder(files, engine.kernels)
        return found | _held(files, chosen, encoder_need(files), budget)
    except PentadError as error:
        return found | {"fits": False, "trouble": str(error)}


def _held(files: ModelFiles, chosen: RunnerChoice, need: MemoryNeed, budget: int) -> dict[str, Any]:
    """Who computes it, with what error its matrices are kept, and what it is booked with."""
    found: dict[str, Any] = {
        "computed_by": chosen.decision.chosen,
        "why": chosen.decision.constraint,
        "memory_bytes": need.total_bytes,
        "fits": need.total_bytes <= budget,
    }
    if chosen.runner == "native":
        found["native_forms"] = {
            name: {"bits": form.bits, "keeps_codes": form.keeps_codes, "error": form.error}
            for name, form in forms_of(files.weights).items()
        }
    return found


def _generator_here(files: ModelFiles, engine: EngineSettings, budget: int) -> dict[str, Any]:
    need = engine_need(files, engine, budget_bytes=budget, worker=True)
    if engine.backend != "engine":
        return {
            "computed_by": "llama.cpp" if engine.backend == "llamacpp" else "OpenVINO",
            "kv_cache_bytes": need.kv_bytes,
            "memory_bytes": need.total_bytes,
            "fits": need.total_bytes <= budget,
        }
    return _held(files, choose(files, engine), need, budget) | {
        "kv_bytes_per_token": files.spec.kv_bytes_per_token(kv_element_bytes(files, engine)),
        "kv_cache_bytes": need.kv_bytes,
    }


def _speed(files: ModelFiles, settings: Settings, engine: EngineSettings) -> dict[str, Any]:
    """Tokens per second of one sequence behind `CONTEXT` tokens and of a prompt, of the native kernels."""
    if engine.backend != "engine" or choose(files, engine).runner != "native":
        return {}
    if not settings.profile_path.exists():
        return {"trouble": "no speed is predicted without a profile; `pentad profile` measures one"}
    try:
        profile = profiles.load(settings.profile_path)
    except PentadError as error:
        return {"trouble": f"no speed is predicted: {error}"}
    form = NativeRunner.form_of(files.spec, files.weights, engine.kv_dtype)
    cost = StepCost(profile=profile, spec=files.spec, form=form)
    decode = StepShape.from_sequences([(1, CONTEXT)], rows=1)
    chunk = StepShape.from_sequences([(_CHUNK, _CHUNK)], rows=1)
    return {
        "predicted_decode_tokens_per_s": round(1 / cost.seconds(decode), 1),
        "predicted_prefill_tokens_per_s": round(_CHUNK / cost.seconds(chunk), 1),
        "bound_by": cost.binding(decode),
    }
