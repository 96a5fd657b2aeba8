"""Error bodies and the answers of probes."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class ErrorDetail(Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, kw_only=True):
    """Every error but those of /v1/messages."""

    error: ErrorDetail


class MessagesErrorDetail(Struct, kw_only=True):
    type: str
    message: str


class MessagesErrorBody(Struct, kw_only=True):
    """Errors of /v1/messages."""

    error: MessagesErrorDetail
    request_id: str
    type: Literal["error"] = "error"


class Status(Struct, kw_only=True):
    """What a probe answers."""

    status: str
    reason: str | UnsetType = UNSET
    models: dict[str, str] | UnsetType = UNSET
    """Of models that requests wait for: what they do."""


class Buckets(Struct, kw_only=True):
    """A histogram since the server's start. `counts` has one entry more than `bounds_s`: those above."""

    bounds_s: list[float]
    """Upper ends of the buckets in seconds, rising; each counts what is at most this and above the last."""
    counts: list[int]
    sum_s: float


class Targets(Struct, kw_only=True):
    """The objective that a client last declared for a model; null where it declared none."""

    ttft_s: float | None
    inter_token_s: float | None


class EngineModel(Struct, kw_only=True):
    """One served model and how busy it is."""

    name: str
    kind: str
    """`generate`, `embed` or `rerank`."""
    context_length: int | None
    remote: bool
    state: str
    """`loaded`, or where a local model is on its way."""
    memory_bytes: int | None
    """What it takes of the memory for models while it is loaded; null where that is not counted."""
    progress: str | None
    """What requests wait for; null where none does."""
    stats: dict[str, float]
    """The backend's own gauges and counters; names that end in `_total` only grow."""
    ttft: Buckets | None
    """From a request's entry to its first piece of answer; null before the first."""
    inter_token: Buckets | None
    """Between two pieces of one answer."""
    targets: Targets


class ClassReport(Struct, kw_only=True):
    """How a service class is kept, since the start."""

    name: str
    target: float
    """Share of requests that are to be kept all promises."""
    kept: int
    missed: int
    attainment: float | None
    """Share of requests that were; null before any has ended."""
    error_budget_left: float
    """1 while none has missed, 0 when as many have as may, and below 0 after that."""


class EngineReport(Struct, kw_only=True):
    """What the console's engine page draws and `pentad ps` lists."""

    version: str
    tenant: str
    """Whose key asked."""
    at_s: float
    """The server's monotonic clock, for rates between two reports."""
    default: str
    """The model of requests that name none."""
    trouble: str | None
    """Why a model is not healthy, if one is not."""
    safe_mode: list[str]
    """Why the router's predictions are not trusted now; empty while they are."""
    agents: bool
    """Whether this server runs agents."""
    memory_bytes: int | None
    """Memory for all local models together; null where nobody counts it."""
    memory_booked_bytes: int | None
    """Of it, what is taken."""
    classes: list[ClassReport]
    """The service classes of the settings."""
    models: list[EngineModel]


class ModelChange(Struct, kw_only=True):
    """Which model to load or unload."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]


class ModelChanged(Struct, kw_only=True):
    success: bool = True


class AdapterLoad(Struct, kw_only=True):
    """Which adapter to serve, and where it lies. Source: vLLM's LoadLoRAAdapterRequest."""

    lora_name: Annotated[str, Meta(min_length=1, max_length=256)]
    lora_path: Annotated[str, Meta(min_length=1, max_length=4096)]
    base_model_name: Annotated[str, Meta(max_length=256)] | None = None
    """The model that it is for; absent: the server's default."""
    load_inplace: bool = False
    """Whether it takes the place of one of that name."""


class AdapterUnload(Struct, kw_only=True):
    """Which adapter to serve no more."""

    lora_name: Annotated[str, Meta(min_length=1, max_length=256)]


class ModelStatus(Struct, kw_only=True):
    value: str
    """`unloaded`, `queued`, `loading`, `loaded`, `draining` or `unloading`."""


class ModelState(Struct, kw_only=True):
    id: str
    status: ModelStatus
    aliases: list[str]
    object: Literal["model"] = "model"


class ModelStates(Struct, kw_only=True):
    data: list[ModelState]
    object: Literal["list"] = "list"


class Version(Struct, kw_only=True):
    version: str
