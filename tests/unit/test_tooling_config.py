"""Settings: order of sources, refusals with a remedy, secrets kept out of sight."""

from __future__ import annotations

import json
import pathlib

import pytest

from pentad.application.config import Settings, leaves, schema_json
from pentad.application.config_loading import load_settings, resolve
from pentad.errors import InvalidRequest
from pentad.registry import known

ROOT = pathlib.Path(__file__).parent.parent.parent


def written(folder: pathlib.Path, text: str, name: str = "pentad.yaml") -> pathlib.Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path, "engine: {threads: 1, max_sequences: 1}\nserver: {port: 1}\n")
    env = {"PENTAD_MAX_SEQUENCES": "2", "PENTAD_PORT": "2"}
    result = resolve({"port": 3}, env=env, file=file)
    engine, server = result.settings.engine, result.settings.server
    assert (engine.threads, engine.max_sequences, server.port, engine.max_waiting) == (1, 2, 3, 256)
    assert result.sources["engine.threads"] == str(file)
    assert result.sources["engine.max_sequences"] == "PENTAD_MAX_SEQUENCES"
    assert result.sources["server.port"] == "--port"
    assert result.sources["engine.max_waiting"] == "default"


@pytest.mark.parametrize("name", ["pentad.yaml", "pentad.toml"])
def test_a_file_in_the_folder_is_found(tmp_path: pathlib.Path, name: str) -> None:
    text = "[server]\nport = 9\n" if name.endswith("toml") else "server:\n  port: 9\n"
    written(tmp_path, text, name)
    assert load_settings(env={}, folder=tmp_path).server.port == 9


def test_every_leaf_name_stands_for_one_field_only() -> None:
    names = [path[-1] for path in leaves()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "unknown key 'prot' in {file}; did you mean 'server.port'?"),
        ("server: {prot: 1}", "unknown key 'server.prot' in {file}; did you mean 'server.port'?"),
        ("port: 1", "unknown key 'port' in {file}; did you mean 'server.port'?"),
        ("engine: {colour: red}", "unknown key 'engine.colour' in {file}; known keys: engine.kv_bytes, "),
        ("engine: {threads: 0}", "engine.threads is 0: Input should be greater than or equal to 1; change "),
        ("engine: {kv_bytes: 3 furlongs}", "engine.kv_bytes is '3 furlongs': no size; write bytes"),
        (
            "engine: {scheduler: soonest}",
            f"unknown scheduler 'soonest'; known: {', '.join(known('scheduler'))}; change it in {{file}}",
        ),
        ("engine: 3", "engine is 3: "),
        ("- 1", "holds a list, not keys and values; keys are home, "),
        ("a: [", "does not parse: "),
        ("server: {host: 0.0.0.0}", "'0.0.0.0'"),
        (
            "log_level: info\nlog_level: debug",
            "line 2, column 1: the key 'log_level' stands already in line 1",
        ),
        ("engine: {threads: 1, threads: 2}", "the key 'threads' stands already in line 1"),
        ("a: &a [*a]", "the value holds itself"),
        ("engine: {kv_bytes: '" + "9" * 400 + "'}", "more than 2^63 bytes"),
        ("models: []", "models and backends are both empty"),
        ("server: {port: 99999}", "port is 99999"),
    ],
)
def test_a_wrong_file_is_refused_with_the_remedy(tmp_path: pathlib.Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidRequest) as caught:
        resolve(env={}, file=file)
    assert message.format(file=file) in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_an_empty_section_set_nothing(tmp_path: pathlib.Path) -> None:
    assert resolve(env={}, file=written(tmp_path, "")).settings == Settings()
    assert resolve(env={"PENTAD_PORT": "8000"}, file=written(tmp_path, "server:\n")).settings == Settings()


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match=r"absent\.yaml' cannot be read: No such file"):
        resolve(env={}, file=tmp_path / "absent.yaml")


def test_variables_of_our_prefix_that_set_nothing_are_reported() -> None:
    result = resolve(env={"PENTAD_PROT": "1", "PENTAD_PORT": "7", "HOME": "/x"})
    assert result.unknown_variables == ("PENTAD_PROT",)


@pytest.mark.parametrize(
    ("text", "value"), [("512MiB", 2**29), ("2 GB", 2 * 10**9), ("1.5GiB", 3 * 2**29), ("1048576", 2**20)]
)
def test_sizes_may_carry_a_unit(text: str, value: int) -> None:
    assert load_settings(env={"PENTAD_KV_BYTES": text}).engine.kv_bytes == value


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    assert load_settings(env={"PENTAD_MODELS": "one, two"}).models == ("one", "two")


def test_null_switches_the_embedding_model_off() -> None:
    assert load_settings(env={"PENTAD_EMBEDDING_MODEL": "null"}).embedding_model is None


def test_keys_are_never_shown() -> None:
    settings = load_settings(env={"PENTAD_API_KEY": "canary-4711"})
    assert settings.server.api_keys
    assert "canary-4711" not in repr(settings) + json.dumps(settings.shown(), default=str)


def test_a_refused_key_list_does_not_repeat_the_key(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(env={}, file=written(tmp_path, "server: {api_keys: {canary-4711: 1}}"))
    assert "canary-4711" not in str(caught.value)


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "pentad.schema.json").read_text(encoding="utf-8")
    assert published == schema_json(), "run: .venv/bin/pentad config schema > docs/pentad.schema.json"
