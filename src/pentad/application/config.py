"""Settings: everything that can be set about a Pentad process, in two sections and a few fields.

Leaf names are unique over all sections, so that a flag or environment variable needs none.
`config_loading.resolve` fills this from flags, environment and file.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(value: object) -> object:
    """`512MiB`, `2 GB` or a number as bytes; anything else is returned for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"{value!r} is no size; write bytes or a number with one of {', '.join(_UNITS)[2:]}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _listed(value: object) -> object:
    return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineSettings(_Section):
    """The local engine, one per loaded model."""

    kv_bytes: Bytes | None = Field(default=None, ge=1 << 20)
    """Memory for the KV cache in bytes, or with a unit: 512MiB. Absent: chosen from free memory."""
    weight_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format that weights are kept in."""
    threads: int | None = Field(default=None, ge=1)
    """Compute threads. Absent: one per core."""
    scheduler: str = "sarathi"
    """Batch scheduler, by registered name."""
    max_batch_tokens: int = Field(default=512, ge=1)
    """Tokens computed per step over all sequences; the chunk size of long prompts."""
    max_sequences: int = Field(default=32, ge=1)
    """Sequences running at once."""
    max_waiting: int = Field(default=256, ge=1)
    """Requests queued before new ones are answered 429."""
    prefix_cache: bool = True
    """Whether requests of one tenant share the cached blocks of equal prompt beginnings."""
    check_invariants: bool = False
    """Whether the block accounting is verified after every step; costs a few percent."""


class ServerSettings(_Section):
    """The gateway process."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs api_keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_listed)] = ()
    """Keys that clients may present. Empty: no key is asked for, on loopback only."""
    allowed_hosts: Names = ()
    """Further names in the Host and Origin headers, besides loopback names and the host."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that running requests may go on after SIGTERM."""
    max_body_bytes: Bytes = Field(default=8 << 20, ge=1024)
    """Largest request body."""
    metrics_compat: Literal["none", "vllm"] = "none"
    """Further names for the metrics: vllm adds the ones that its dashboards expect."""

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if self.host not in LOOPBACK and not self.api_keys:
            raise ValueError(
                f"host {self.host!r} can be reached by others but api_keys is empty; "
                f"add a key (--api-key) or listen on {LOOPBACK[0]}"
            )
        return self


class RemoteBackend(_Section):
    """An OpenAI-compatible endpoint that serves one more model."""

    name: str
    """The model's name here."""
    url: str = Field(pattern=r"^https?://")
    """Base URL up to and including /v1."""
    model: str | None = None
    """The model's name there. Absent: the same."""
    api_key_env: str | None = None
    """Environment variable that holds the key."""
    context_length: int = Field(default=8192, ge=1)
    """Context window of the remote model in tokens."""


class Settings(_Section):
    """Everything that can be set about a Pentad process."""

    home: pathlib.Path = pathlib.Path("~/.cache/pentad")
    """Folder of models, profile and journal."""
    models: Names = Field(default=("smollm2-135m",), min_length=1)
    """Models to serve from the local store, by name, reference or path; the first is the default."""
    embedding_model: str | None = "minilm"
    """Model for /v1/embeddings and long-term memory; null for none."""
    backends: tuple[RemoteBackend, ...] = ()
    """Remote models served beside the local ones."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line written to standard error."""
    engine: EngineSettings = EngineSettings()
    server: ServerSettings = ServerSettings()

    @property
    def root(self) -> pathlib.Path:
        """`home` with the user's folder filled in."""
        return self.home.expanduser()

    @property
    def journal_path(self) -> pathlib.Path:
        """The SQLite file of agent runs."""
        return self.root / "journal.sqlite3"

    @property
    def profile_path(self) -> pathlib.Path:
        """Where `pentad profile` keeps this machine's measurements."""
        return self.root / "profile.json"


def leaves(model: type[BaseModel] = Settings, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every settable field, sections descended into."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            yield from leaves(kind, (*prefix, name))
        else:
            yield (*prefix, name)


def schema_json() -> str:
    """The JSON Schema of a settings file, for editors; published as docs/pentad.schema.json."""
    schema = Settings.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "pentad.yaml"}
    return json.dumps(schema, indent=2) + "\n"
