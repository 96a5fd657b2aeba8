"""The flags that stand for settings, shared by the verbs; a flag is named as its field.

They are a table rather than a reading of `Settings`, so that `pentad --help` need not import it;
tests/unit/test_cli_options.py holds the two together.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from pentad.application.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One setting as a command-line option. Absent means: not given, so other sources decide."""

    name: str
    help: str
    kind: Any = str
    metavar: str | None = None
    option: str | None = None
    """How it is written, where that is not the name with dashes."""

    @property
    def written(self) -> str:
        dashed = f"--{self.name.replace('_', '-')}"
        return self.option or (f"{dashed}/--no-{dashed[2:]}" if self.kind is bool else dashed)


COMMON = (
    Flag(name="home", help="Folder of models, packed weights and profile.", metavar="FOLDER"),
    Flag(name="data_home", help="Folder of journal, memory and approvals.", metavar="FOLDER"),
    Flag(name="log_level", help="debug, info, warning or error.", metavar="LEVEL"),
)
ENGINE = (
    Flag(name="backend", help="engine, llamacpp or openvino: what computes local models.", metavar="NAME"),
    Flag(name="kv_bytes", help="Memory for the KV cache, e.g. 512MiB.", metavar="SIZE"),
    Flag(name="weight_dtype", help="auto, float32 or bfloat16.", metavar="TYPE"),
    Flag(
        name="kv_dtype",
        help="KV cache: auto, bfloat16, int8 (half the bytes), int8-int4 or int4 (a third).",
        metavar="TYPE",
    ),
    Flag(name="kernels", help="auto, torch or an instruction set: amx, avx512, avx2 ...", metavar="NAME"),
    Flag(name="device", help="auto, cpu, cuda or cuda:N.", metavar="NAME"),
    Flag(name="threads", help="Compute threads; one per core when absent.", kind=int),
    Flag(name="scheduler", help="Batch scheduler; `pentad strategies` lists them.", metavar="NAME"),
    Flag(name="max_batch_tokens", help="Tokens computed per step.", kind=int),
    Flag(name="max_sequences", help="Sequences running at once.", kind=int),
    Flag(name="tenant_sequences", help="Of one tenant, while others are active.", kind=int),
    Flag(name="max_waiting", help="Requests queued before 429.", kind=int),
    Flag(name="residency", help="Where weights lie: mapped, resident or streamed.", metavar="NAME"),
    Flag(name="expert_memory", help="Memory for routed experts, SIZE or SIZE:NAME.", metavar="SIZE"),
    Flag(name="prefix_cache", help="Share blocks of equal prompt beginnings.", kind=bool),
    Flag(name="kept_fraction", help="KV kept over the pauses of runs, 0 to 1.", kind=float),
    Flag(
        name="kv_eviction",
        help="What stays cached over pauses; `pentad strategies kv_eviction`.",
        metavar="NAME",
    ),
    Flag(name="kv_store_bytes", help="On disk for KV blocks of runs that go on, e.g. 2GiB.", metavar="SIZE"),
    Flag(name="check_invariants", help="Verify block accounting after every step.", kind=bool),
    Flag(
        name="input_batching",
        help="Which texts for vectors are computed together; `pentad strategies input_batching`.",
        metavar="NAME",
    ),
    Flag(name="kv_policy", help="What stays in the KV cache; `pentad strategies kv_policy`.", metavar="NAME"),
    Flag(
        name="attention_filter",
        help="What a step attends to; `pentad strategies attention_filter`.",
        metavar="NAME",
    ),
    Flag(
        name="speculation",
        help="none, ngram, draft, specinfer, sequoia or llmcad; NAME:OPTION=VALUE.",
        metavar="NAME",
    ),
    Flag(
        name="draft_models",
        help="Model that drafts; repeatable.",
        kind=list[str],
        option="--draft-model",
        metavar="MODEL",
    ),
    Flag(name="draft_tokens", help="Tokens drafted per step, at most.", kind=int),
    Flag(
        name="tool_format", help="How models write tool calls; auto: as their template tells.", metavar="NAME"
    ),
    Flag(
        name="reasoning_format",
        help="How they mark reasoning; auto: as their template tells.",
        metavar="NAME",
    ),
    Flag(name="adapters", help='Low-rank adapters: {"BASE:NAME": "PATH"}.', metavar="JSON"),
    Flag(name="replicas", help="Engines of a model that share its requests.", kind=int),
    Flag(
        name="parallel",
        help="Processes that share a model: pp=2,tp=2, or a plan's file.",
        metavar="LAYOUT",
    ),
    Flag(name="parallel_codec", help="How they write hidden states to each other.", metavar="NAME"),
    Flag(
        name="parallel_transport",
        help="How they reach each other: tcp:host=ADDRESS between machines.",
        metavar="NAME",
    ),
    Flag(
        name="parallel_key_file",
        help="Key of those that `pentad rank` starts elsewhere.",
        metavar="FILE",
    ),
    Flag(
        name="transport",
        help="serve: in-process, or shared-memory or tcp for processes of their own.",
        metavar="NAME",
    ),
)
SERVER = (
    Flag(name="host", help="Address to listen on; beyond loopback needs an API key."),
    Flag(name="port", help="Port to listen on; 0 takes a free one.", kind=int),
    Flag(
        name="api_keys", help="Key that clients must present; repeatable.", kind=list[str], option="--api-key"
    ),
    Flag(name="api_keys_file", help="File of such keys, one per line.", metavar="FILE"),
    Flag(name="allowed_hosts", help="Further Host name to answer to.", kind=list[str]),
    Flag(name="allowed_origins", help="Web origin that browsers may call from.", kind=list[str]),
    Flag(name="access_log", help="One line per request on standard error.", kind=bool),
    Flag(name="max_body_bytes", help="Largest request body, e.g. 8MiB.", metavar="SIZE"),
    Flag(name="max_part_bytes", help="Largest image, sound or file in a message.", metavar="SIZE"),
    Flag(name="max_parts_bytes", help="All of them in one request together.", metavar="SIZE"),
    Flag(name="max_parts", help="How many of them in one request.", kind=int),
    Flag(
        name="remote_parts",
        help="Host that they are fetched from by URL; repeatable; * for all.",
        kind=list[str],
        metavar="HOST",
    ),
    Flag(name="file_store_bytes", help="Room for uploaded files, e.g. 64MiB.", metavar="SIZE"),
    Flag(name="max_concurrent_requests", help="Requests at once; then 429.", kind=int),
    Flag(name="max_runs", help="Agent runs at once; then 429.", kind=int),
    Flag(name="hold_runs_above", help="KV share beyond which new runs wait.", kind=float),
    Flag(name="max_followers", help="Streams of run events at once; then 429.", kind=int),
    Flag(name="drain_s", help="Seconds that requests may go on after SIGTERM.", kind=float),
    Flag(name="metrics_compat", help="none, or vllm for its metric names too.", metavar="NAMES"),
)
AGENTS = (
    Flag(name="agents", help="Agent file, folder or glob; repeatable.", kind=list[str], metavar="FILES"),
    Flag(
        name="mcp_commands",
        help="Program that agent files may start as an MCP server; repeatable.",
        kind=list[str],
        option="--mcp-command",
        metavar="NAME",
    ),
)
MODELS = (
    Flag(name="embedding_model", help="Model for embeddings; null for none.", metavar="MODEL"),
    Flag(name="transcription_model", help="Folder of a Whisper model for /v1/audio.", metavar="FOLDER"),
    Flag(
        name="memory_bytes",
        help="Memory for all local models and this process, e.g. 3GB.",
        option="--memory",
        metavar="SIZE",
    ),
    Flag(
        name="quality_floor",
        help="What certificates have to say: kl=0.05,top1=0.9; `pentad strategies metric`.",
        metavar="METRIC=VALUE,...",
    ),
    Flag(name="eviction", help="Which model leaves; `pentad strategies eviction`.", metavar="NAME"),
    Flag(name="keep_loaded_s", help="Seconds that a model stays loaded unused.", kind=float),
    Flag(name="scaler", help="When models are loaded; `pentad strategies scaler`.", metavar="NAME"),
    Flag(name="router", help="Which served model answers; `pentad strategies router`.", metavar="NAME"),
)
TELEMETRY = (
    Flag(name="traces", help="none, or otlp: export traces to a collector.", metavar="NAME"),
    Flag(name="otlp_endpoint", help="Its base URL, e.g. http://localhost:4318.", metavar="URL"),
)


def number(
    flag: str,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    **options: Any,
) -> Any:
    """An option for a finite number in a range, which its help names. Every numeric flag is made by this."""
    from pentad.ranges import described, in_range

    def checked(value: float | None) -> float | None:
        in_range(flag, value, least=least, above=above, most=most, hint=f"change {flag}")
        return value

    bounds = "" if least is above is most is None else f" ({described(least, above, most)})"
    return typer.Option(flag, help=f"{help}{bounds}", callback=checked, **options)


def settings_of(flags: dict[str, Any], config: pathlib.Path | None, *, quiet: bool = False) -> Settings:
    """The settings that a verb's flags amount to, with logging set up as they say.

    Args:
        quiet: log warnings only where nobody chose a level, since the verb's own words matter more.
    """
    from pentad.application.config_loading import resolve
    from pentad.application.logs import set_up_logging

    resolved = resolve(flags, file=config)
    chosen = resolved.sources["log_level"] != "default"
    set_up_logging("warning" if quiet and not chosen else resolved.settings.log_level)
    return resolved.settings


def with_settings(*groups: tuple[Flag, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `--config` and the groups' flags to a verb, which receives them as `flags` and `config`.

    The verb itself declares the parameters `flags: dict[str, Any]` and `config: Path | None`.
    """
    flags = tuple(flag for group in groups for flag in group)

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def wrapper(**arguments: Any) -> None:
            given = {flag.name: arguments.pop(flag.name) for flag in flags}
            verb(flags={k: v for k, v in given.items() if v not in (None, [])}, **arguments)

        own = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [p for p in own if p.name not in ("flags", "config")]
        parameters += [_config_parameter(), *map(_flag_parameter, flags)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__
        return wrapper

    return decorate


@functools.cache
def _config_parameter() -> inspect.Parameter:
    option = typer.Option("--config", help="Settings file.", metavar="FILE", show_default=False)
    return _parameter("config", Annotated[Optional[pathlib.Path], option])  # noqa: UP045


@functools.cache
def _flag_parameter(flag: Flag) -> inspect.Parameter:
    """One for all verbs: the help of the whole program builds every verb with all of its flags."""
    option = typer.Option(
        flag.written,
        help=flag.help,
        metavar=flag.metavar,
        show_default=False,
        rich_help_panel="Settings",
    )
    return _parameter(flag.name, Annotated[Optional[flag.kind], option])  # noqa: UP045


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
