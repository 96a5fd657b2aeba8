"""Verbs that answer with a model: serve, run, chat, ps."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated, Any

import typer

from pentad.application.cli.attachments import Files, Images, Sounds, attached
from pentad.application.cli.options import (
    AGENTS,
    COMMON,
    ENGINE,
    MODELS,
    SERVER,
    TELEMETRY,
    number,
    settings_of,
    with_settings,
)
from pentad.application.cli.output import note, print_json, print_table, size
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

System = Annotated[str | None, typer.Option("--system", help="System prompt.")]
MaxTokens = Annotated[int | None, number("--max-tokens", "Most tokens to generate.", least=1)]
Temperature = Annotated[
    float | None,
    number("--temperature", "0 is greedy; absent: the model's own, else 0.7.", least=0, most=2),
]
Seed = Annotated[int | None, number("--seed", "Makes the draws repeatable.", least=0, most=2**63 - 1)]


INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    panel = "Serve and talk"
    app.command("serve", rich_help_panel=panel)(serve)
    app.command("run", rich_help_panel=panel)(run)
    app.command("chat", rich_help_panel=panel)(chat)
    app.command("ps", rich_help_panel=panel)(ps)


@with_settings(COMMON, SERVER, MODELS, AGENTS, ENGINE, TELEMETRY)
def serve(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Models to serve, the default first.")
    ] = None,
) -> None:
    """Serve models and agents over HTTP: OpenAI and Anthropic APIs, runs, metrics and the console."""
    from pentad.application.cli.server import serve_forever

    serve_forever(settings_of(flags | ({"models": models} if models else {}), config))


@with_settings(COMMON, ENGINE)
def run(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, reference or path of a model.")],
    prompt: Annotated[str | None, typer.Argument(help="What to say; read from stdin when absent.")] = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    image: Images = None,
    audio: Sounds = None,
    file: Files = None,
    json: JsonOption = False,
) -> None:
    """Answer one prompt and stop. The answer goes to standard output as it is made."""
    from pentad.application.cli.talk import Talk, answer_once

    if prompt is None:
        if sys.stdin.isatty():
            raise InvalidRequest("no prompt", hint="give it after the model, or pipe it in", param="prompt")
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise InvalidRequest(
            "the prompt is empty", hint="give it after the model, or pipe it in", param="prompt"
        )
    parts = attached(image, audio, file)
    talk = Talk(system=system, max_tokens=max_tokens, temperature=temperature, seed=seed, attached=parts)
    if not answer_once(settings_of(_alone(flags, model), config, quiet=True), talk, prompt, as_json=json):
        raise typer.Exit(INTERRUPTED)


@with_settings(COMMON, ENGINE)
def chat(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Absent: the default model.")] = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    image: Images = None,
    audio: Sounds = None,
    file: Files = None,
) -> None:
    """Talk with a model in the terminal. An empty line or Ctrl-D ends it; Ctrl-C stops an answer.

    Images, sounds and files go with the first message.
    """
    from pentad.application.cli.talk import Talk, converse

    parts = attached(image, audio, file)
    talk = Talk(system=system, max_tokens=max_tokens, temperature=temperature, seed=seed, attached=parts)
    converse(settings_of(_alone(flags, model), config, quiet=True), talk)


def ps(
    url: Annotated[
        str, typer.Option("--url", help="Address of the server.", envvar="PENTAD_URL")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="PENTAD_API_KEY", help="Its key.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List what a running server serves and how busy it is."""
    from pentad.application.cli.client import ServerClient

    state = ServerClient(url, api_key).get("/v1/engine")
    if json:
        print_json(state)
        return
    if state["trouble"]:
        note(f"warning: {state['trouble']}")
    rows = [_ps_row(model) for model in state["models"]]
    columns = ("model", "kind", "state", "memory", "context", "running", "waiting", "KV in use")
    print_table(columns, rows, empty="nothing is served")
    if (budget := state["memory_bytes"]) is not None:
        note(f"memory for models: {size(state['memory_booked_bytes'])} of {size(budget)} taken")
    for model in state["models"]:
        if model["progress"]:
            note(model["progress"])


def _ps_row(model: dict[str, Any]) -> tuple[object, ...]:
    stats = model["stats"]
    running, waiting = stats.get("running"), stats.get("waiting")
    usage = stats.get("kv_usage_fraction")
    return (
        model["name"],
        model["kind"],
        model["state"],
        None if model["memory_bytes"] is None else size(model["memory_bytes"]),
        model["context_length"],
        None if running is None else int(running),
        None if waiting is None else int(waiting),
        None if usage is None else f"{usage:.0%}",
    )


def _alone(flags: dict[str, Any], model: str | None) -> dict[str, Any]:
    """One model and no embedder: what a single conversation needs."""
    return flags | {"embedding_model": "null"} | ({"models": [model]} if model else {})
