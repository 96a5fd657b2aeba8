"""A model on a remote server, as the settings describe it."""

from __future__ import annotations

import os
import pathlib

from pentad import registry
from pentad.application.config import RemoteBackend
from pentad.errors import InvalidRequest
from pentad.execution.backend import Backend
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.engines import engine_named
from pentad.model.backends.wires.base import Wire
from pentad.model.exports.base import Exported, ExportReader


def remote_backend(remote: RemoteBackend) -> Backend:
    """What serves a model of the settings' `backends`.

    Raises:
        InvalidRequest: its key or template cannot be read; UnknownName for its engine.
        MissingExtra: its client is not installed.
    """
    engine = engine_named(remote.engine)
    key = os.environ.get(remote.api_key_env) if remote.api_key_env else None
    if remote.api_key_env and not key:
        raise InvalidRequest(
            f"backend {remote.name!r} takes its key from the environment variable {remote.api_key_env!r}, "
            "which is not set",
            hint=f"export {remote.api_key_env}=... or take api_key_env out",
        )
    found = _exported(remote)
    said = found.context_length if found and "context_length" not in remote.model_fields_set else None
    endpoint = Endpoint(
        base_url=remote.url,
        model=remote.model or remote.name,
        api_key=key or "none",
        context_length=said or remote.context_length,
        remote=remote.remote,
        engine=engine,
        vllm_fields=remote.vllm_fields,
        version=remote.version,
        chat_template=_template_source(remote),
        register=remote.register_model,
        metrics_url=remote.metrics_url,
        media=frozenset(remote.media) | (found.media if found else frozenset()),
        max_tokens_field=remote.max_tokens_field,
        timeout_s=remote.timeout_s,
        extra_body=remote.extra_body,
    )
    wire: Wire = registry.load("wire", engine.wire)(endpoint)
    backend: Backend = registry.load("backend", "openai")(endpoint, name=remote.name, wire=wire)
    return backend


def _exported(remote: RemoteBackend) -> Exported | None:
    """What the model's files say. Raises BadModelFile; InvalidRequest for an engine whose are not read."""
    if remote.exported is None:
        return None
    if remote.engine not in registry.known("export"):
        raise InvalidRequest(
            f"engine {remote.engine!r} has no form of models that is read here, but backend {remote.name!r} "
            "names `exported`",
            hint=f"take it out; forms of {', '.join(registry.known('export'))} are read",
            param="backends",
        )
    read: ExportReader = registry.load("export", remote.engine)
    return read(remote.exported.expanduser())


def _template_source(remote: RemoteBackend) -> str | None:
    given = remote.chat_template
    if given is None or given == "chatml":
        return given
    try:
        return pathlib.Path(given).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"the chat template {given!r} of backend {remote.name!r} cannot be read: {error}",
            hint="set its `chat_template` to chatml or the path of a Jinja file",
            param="backends",
        ) from error
