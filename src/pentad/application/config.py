"""Settings: everything that can be set about a Pentad process, in two sections and a few fields.

Leaf names are unique over all sections, so that a flag or environment variable needs none.
`config_loading.resolve` fills this from flags, environment and file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from pentad.application.gateway.settings import GatewaySettings
from pentad.choice import Choice
from pentad.content import MediaKind

Strategy = Annotated[
    Choice,
    BeforeValidator(Choice.of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "options": {"type": "object"}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A strategy by name, as `name:option=value,...`, or as `{name, options}`."""


def _floor_of(value: Any) -> Any:
    """A mapping, also written as METRIC=VALUE,...; names may have underscores for dashes."""
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): bound.strip() for name, _, bound in parts}
    return {str(k).replace("_", "-"): v for k, v in value.items()} if isinstance(value, dict) else value


Floor = Annotated[dict[str, float], BeforeValidator(_floor_of)]
"""Least quality by metric."""

DEFAULT_HOME = pathlib.Path("~/.cache/pentad")
JOURNAL_FILE, MEMORY_FILE, APPROVALS_FILE = "journal.sqlite3", "memory.db", "mcp-approvals.json"
LOGINS_FILE = "mcp-logins.json"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class EngineSettings(_Section):
    """The local engine, one per loaded model."""

    kv_bytes: int | None = Field(default=None, ge=1 << 20)
    """Memory for the KV cache in bytes, or with a unit: 512MiB. Absent: chosen from free memory."""
    weight_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format that weights are kept in. Any but auto is computed by PyTorch."""
    kv_dtype: Literal["auto", "bfloat16", "int8", "int8-int4", "int4"] = "auto"
    """Number format of the KV cache. int8 takes about half the memory, int4 a third, int8-int4 (keys in 8
    bits, values in 4) two fifths; native kernels only. `pentad certify` measures what they cost."""
    kernels: Literal[
        "auto", "amx", "avx512", "avx512vnni", "avxvnni", "avx2", "neon", "portable", "torch"
    ] = "auto"
    """Instruction set of the native kernels, or torch. auto: the fastest that CPU and model allow."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """What computes: cpu, cuda or cuda:N. auto: the CPU, or a GPU where PyTorch computes and sees one."""
    threads: int | None = Field(default=None, ge=1)
    """Compute threads. Absent: one per core."""
    scheduler: Strategy = Choice(name="sarathi")
    """Batch scheduler: a name, or name and options."""
    max_batch_tokens: int = Field(default=512, ge=1)
    """Tokens computed per step over all sequences; the chunk size of long prompts."""
    max_sequences: int = Field(default=32, ge=1)
    """Sequences running at once."""
    tenant_sequences: int = Field(default=2, ge=1)
    """Sequences of one tenant running at once while another tenant is active."""
    max_waiting: int = Field(default=256, ge=1)
    """Requests queued before new ones are answered 429."""
    residency: Strategy | None = None
    """Where weights lie: a name, or name and options. Absent: mapped by the native kernels, resident else."""
    expert_memory: str | None = Field(default=None, min_length=1)
    """Memory for the routed experts of a model, and who stays in it: 2GiB, or 2GiB:NAME with options of the
    family `expert_cache`. Absent: all that the system has room for."""
    prefix_cache: bool = True
    """Whether requests of one tenant share the cached blocks of equal prompt beginnings."""
    kept_fraction: float = Field(default=0.5, ge=0, le=1)
    """Of the KV cache, how much may be kept over the pauses of runs that announce their next request."""
    check_invariants: bool = False
    """Whether the block accounting is verified after every step; slow, for tests and doubt."""
    kv_policy: Strategy = Choice(name="keep-all")
    """Which cached keys and values of a sequence stay: a name, or name and options."""
    attention_filter: Strategy = Choice(name="unfiltered")
    """Which cached positions a step attends to: a name, or name and options. Most need PyTorch."""
    kv_eviction: Strategy = Choice(name="announced")
    """Which cached texts stay over the pauses of their runs: a name, or name and options."""
    kv_store_bytes: int | None = Field(default=None, ge=1 << 20)
    """Bytes on disk for the KV blocks of runs that go on, so that they outlive the cache and the server.
    Absent: none, since they hold what prompts say."""
    input_batching: Strategy = Choice(name="bucketed")
    """Which texts of requests for vectors and scores are computed together: a name, or name and options."""
    speculation: Strategy = Choice(name="none")
    """Who drafts tokens ahead, for several to be verified in one step: none, a name, or name and options."""
    draft_models: tuple[str, ...] = ()
    """Models that draft, with the tokenizer of the served ones: name, reference or path."""
    draft_tokens: int = Field(default=16, ge=1, le=64)
    """Tokens drafted per sequence and step, at most; measured gain and cost choose how many."""
    adapters: dict[str, str] = Field(default_factory=dict)
    """Low-rank adapters as base:name to their file or folder; each is served under that name, together with
    its base in one batch."""
    tool_format: str = "auto"
    """How models write tool calls: a name of the family `tool_format`. auto: as a chat template tells."""
    reasoning_format: str = "auto"
    """How models mark their reasoning: a name, or none. auto: as a chat template tells."""
    backend: Literal["engine", "llamacpp", "openvino"] = "engine"
    """What computes local models: Pentad's own engine, llama.cpp (extra `llamacpp`), or OpenVINO (package
    openvino-genai)."""
    parallel: str | None = Field(default=None, min_length=4)
    """How several processes compute a model together: pp=2,tp=2, or a plan that `plan --json` wrote. Absent:
    one does it alone."""
    parallel_codec: Strategy = Choice(name="plain")
    """How they write what they hand to each other: a name, or name and options."""
    parallel_transport: Strategy = Choice(name="shared-memory")
    """How they reach each other: a name, or name and options; tcp between machines."""
    parallel_key_file: str | None = None
    """File with 64 hexadecimal digits that only they know. With one, people start all but the first of them,
    wherever they want, with `pentad rank`. Absent: they are started here."""
    transport: Strategy = Choice(name="shared-memory")
    """How `serve` reaches its engines: in-process, or what leads to a supervised process for each."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Engines of each model that `serve` starts, each request at one of them."""


class RemoteBackend(_Section):
    """A remote server with one more model: an OpenAI-compatible one, unless `engine` says otherwise."""

    name: str
    """The model's name here."""
    url: str = Field(pattern=r"^https?://")
    """Base URL up to and including /v1; of triton, tfserving and mii what stands before /v2, /v1 and /mii."""
    engine: str = "openai"
    """What serves it, which settles what it can be asked for and how: openai, vllm, sglang, mlc, mnn,
    fastchat, deepspeed, openvino, mllm, tensorrt-llm, triton, tfserving, mii."""
    version: str | None = None
    """The model's version on triton and tfserving, or a label of tfserving's. Absent: the server's choice."""
    chat_template: str | None = None
    """How conversations are written for triton, tfserving and mii, which take plain text: chatml, or the path
    of a Jinja file. Absent: they take prompts only."""
    register_model: bool = False
    """Whether triton is told to load the model from its repository before the first request."""
    metrics_url: str | None = Field(default=None, pattern=r"^https?://")
    """Page of the server's own metrics in Prometheus' form, told among ours as server_..."""
    exported: pathlib.Path | None = None
    """The model's folder for mlc and mnn, its file for mllm, if it is on this machine: checked at the start;
    context and media follow from it where they are not set."""
    model: str | None = None
    """The model's name there. Absent: the same."""
    api_key_env: str | None = None
    """Environment variable that holds the key."""
    context_length: int = Field(default=8192, ge=1)
    """Context window of the remote model in tokens."""
    quality: float | None = Field(default=None, ge=0, le=1)
    """How good its answers are, 0 to 1, on the scale of the catalogue; for routers that go by it."""
    remote: bool = True
    """Whether prompts leave this machine; false only for a server on this machine."""
    vllm_fields: bool | None = None
    """Whether the endpoint takes vLLM's further fields: top_k, min_p, regex, thinking, priority and more.
    Absent: as its engine does."""
    media: tuple[MediaKind, ...] = ()
    """Parts beside text that the model takes: image, audio, file. They are sent in OpenAI's form."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the answer's limit; OpenAI's own newer models want the second."""
    timeout_s: float = Field(default=120.0, gt=0, le=86_400)
    """Longest wait for the connection and for each piece of the answer."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields sent with every request."""
    standby: str | None = None
    """Model of this machine that answers where this one fails before its answer began; its name here."""
    standby_after_s: float = Field(default=10.0, gt=0, le=3600)
    """How long this one has to begin its answer, before the standby does."""
    standby_again_s: float = Field(default=30.0, ge=0, le=86_400)
    """How long this one is not asked again once it failed, and the standby answers at once."""


class ModelPrice(_Section):
    """What a served model costs, in any currency, the same for all."""

    model: str
    """The model's name here, local or remote."""
    prompt: float = Field(ge=0, le=1e9)
    """Money per million prompt tokens."""
    completion: float = Field(ge=0, le=1e9)
    """Money per million generated tokens."""
    cached: float | None = Field(default=None, ge=0, le=1e9)
    """Money per million prompt tokens that were cached. Absent: as the others."""


class TelemetrySettings(_Section):
    """Traces that leave this process, for OpenTelemetry's collectors. Off unless asked for."""

    traces: Literal["none", "otlp"] = "none"
    """Where spans of runs, model calls, tools and requests go: nowhere, or to a collector by OTLP over HTTP
    (extra `telemetry`). OpenTelemetry's own variables (OTEL_*) count only where this is not none."""
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://")
    """Base URL of the collector. Absent: OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318."""
    otlp_headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every export, a key for instance. Absent: OTEL_EXPORTER_OTLP_HEADERS."""
    service_name: str | None = None
    """What this process is called in traces. Absent: OTEL_SERVICE_NAME, else pentad."""
    trace_fraction: float = Field(default=1.0, ge=0, le=1)
    """Of the traces that begin here, how many are recorded; those that a caller began, as it says."""
    trace_content: bool = False
    """Whether traces tell what was asked and answered, and tools' arguments and results. Those of runs and
    requests with a data label never do."""

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.otlp_endpoint is not None and self.traces == "none":
            raise ValueError("otlp_endpoint is set, but traces is none; set traces to otlp")
        return self


class Settings(_Section):
    """Everything that can be set about a Pentad process."""

    home: pathlib.Path = DEFAULT_HOME
    """Folder of models, packed weights and the profile: what can be had again."""
    data_home: pathlib.Path | None = None
    """Folder of journal, memory and approvals. Absent: `home` where that is set, else
    $XDG_DATA_HOME/pentad (~/.local/share/pentad)."""
    models: tuple[str, ...] = ("smollm2-135m",)
    """Models to serve from the local store, by name, reference or path; the first is the default.
    Of a folder of models each one is served. May be empty where `backends` are not."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Further names of served models, with or without a tag: gpt-4o, coder:small. Name to model."""
    embedding_model: str | None = "minilm"
    """Model for /v1/embeddings and long-term memory; null for none."""
    transcription_model: pathlib.Path | None = None
    """Folder of a Whisper model of CTranslate2's form, for /v1/audio; its name is the model's. Needs the
    extra `audio`."""
    backends: tuple[RemoteBackend, ...] = ()
    """Remote models served beside the local ones, each under a name of its own."""
    prices: tuple[ModelPrice, ...] = ()
    """What served models cost; one without a price costs nothing. Budgets of money count by these."""
    agents: tuple[str, ...] = ()
    """Agents to offer besides the built-in ones: files, folders or globs. Changes are picked up."""
    mcp_commands: tuple[str, ...] = ()
    """Executables that agent files may start as MCP servers, as they write them, e.g. npx."""
    journal: str | None = None
    """Where agent runs are kept, if several machines share them: postgresql://USER@HOST/DATABASE, the
    password from PGPASSWORD or a password file. Absent: a SQLite file in the data folder."""
    prompt_days: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """Days that the exact prompts of agent runs are kept in the journal; 0 keeps none."""
    prompt_labels: tuple[str, ...] = ()
    """Data labels of runs whose prompts are kept too; those of runs without a label always are."""
    router: Strategy = Choice(name="fixed")
    """Which served model answers a request: a name, or name and options."""
    answer_cache_bytes: int | None = Field(default=None, ge=1 << 16)
    """Memory for whole answers, given again where the same tenant asks the same and nothing is drawn, or by a
    seed. Absent: none are kept."""
    memory_bytes: int | None = Field(default=None, ge=1 << 20)
    """Memory for this process and all local models, or with a unit: 3GB. Absent: nine tenths of what is
    free at the start, for the models."""
    quality_floor: Floor = Field(default_factory=dict)
    """What certificates of derived models, and of settings that change answers, have to say, or the model is
    not loaded: metric to value, or kl=0.05,perplexity-ratio=1.02 in text. Absent: any is loaded."""
    eviction: Strategy = Choice(name="recent-cost")
    """Which loaded model leaves when another one needs its memory: a name, or name and options."""
    keep_loaded_s: float | None = Field(default=None, ge=0)
    """Seconds that a local model stays loaded without requests. Absent: until others need its memory."""
    scaler: Strategy | None = None
    """When local models are loaded and unloaded by load: a name, or name and options. All are loaded at
    the start. Absent: by first use, within `memory_bytes`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line written to standard error."""
    engine: EngineSettings = EngineSettings()
    server: GatewaySettings = GatewaySettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if not self.models and not self.backends:
            raise ValueError("models and backends are both empty; name at least one model to serve")
        return self

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        lists = {
            "backends": [backend.name for backend in self.backends],
            "prices": [price.model for price in self.prices],
        }
        for field, names in lists.items():
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{field} has two entries for {name!r}; give each a name of its own")
        return self

    @property
    def root(self) -> pathlib.Path:
        """`home` with the user's folder filled in."""
        return self.home.expanduser()

    @property
    def data_root(self) -> pathlib.Path:
        """`data_home` with its default and the user's folder filled in."""
        if self.data_home is not None:
            return self.data_home.expanduser()
        if self.home != DEFAULT_HOME:
            return self.root
        return pathlib.Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "pentad"

    @property
    def journal_path(self) -> pathlib.Path:
        """The SQLite file of agent runs."""
        return self.data_root / JOURNAL_FILE

    @property
    def memory_path(self) -> pathlib.Path:
        """The SQLite file of long-term memory."""
        return self.data_root / MEMORY_FILE

    @property
    def approvals_path(self) -> pathlib.Path:
        """What persons allowed MCP servers: their tools as they were seen, and their command lines."""
        return self.data_root / APPROVALS_FILE

    @property
    def logins_path(self) -> pathlib.Path:
        """Tokens of MCP servers that somebody signed in to. No backup holds them."""
        return self.data_root / LOGINS_FILE

    @property
    def packed_folder(self) -> pathlib.Path:
        """Where weights are kept as the native kernels read them, for a quick next start."""
        return self.root / "packed"

    @property
    def profile_path(self) -> pathlib.Path:
        """Where `pentad profile` keeps this machine's measurements."""
        return self.root / "profile.json"

    def shown(self) -> dict[str, object]:
        """Every leaf by its dotted path, fit to be printed: secrets are only counted."""
        shown: dict[str, object] = {}
        for path in leaves():
            value: Any = self
            for name in path:
                value = getattr(value, name)
            if path[-1] == "api_keys":
                value = f"{len(value)} set" if value else None
            elif path[-1] == "otlp_headers":
                value = ", ".join(sorted(value)) or None
            elif path[-1] == "journal" and value is not None:
                value = _without_password(value)
            elif isinstance(value, Choice):
                value = str(value)
            shown[".".join(path)] = value
        return shown


def leaves(section: Any = Settings, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every settable field, sections descended into."""
    for name, kind in _fields(section).items():
        section = isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))
        inner = section and kind is not Choice
        if inner:
            yield from leaves(kind, (*prefix, name))
        else:
            yield (*prefix, name)


def is_list(path: tuple[str, ...]) -> bool:
    """Whether the leaf at `path` holds several names."""
    section: Any = Settings
    for name in path[:-1]:
        section = _fields(section)[name]
    return "tuple[str" in str(_fields(section)[path[-1]])


def schema_json() -> str:
    """The JSON Schema of a settings file, for editors; published as docs/pentad.schema.json."""
    schema = Settings.model_json_schema()
    for section in schema["$defs"].values():
        for name, leaf in section["properties"].items():
            if name.endswith("_bytes"):  # sizes may carry a unit
                leaf.pop("type", None)
                leaf["anyOf"] = [*leaf.get("anyOf", [{"type": "integer"}]), {"type": "string"}]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "pentad.yaml"}
    return json.dumps(schema, indent=2) + "\n"


def _fields(section: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {name: field.annotation for name, field in section.model_fields.items()}


def _without_password(url: str) -> str:
    """A connection string, fit to be printed."""
    hidden = re.sub(r"(://[^/@]*?:)[^/@]*@", r"\1***@", url)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", hidden)
