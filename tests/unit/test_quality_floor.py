"""Quality floor: a derived model is served only with a certificate that reaches it."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from test_certificates import certify, derive, request, store

from cli_support import Pentad
from pentad.application.config import Settings
from pentad.application.config_loading import resolve
from pentad.application.quality_floor import check_floor
from pentad.errors import BadModelFile, Incompatible, InvalidRequest, UnknownName
from pentad.model.store import ModelStore

__all__ = ["store"]


def settings(store: ModelStore, *, kv_dtype: str = "auto", **floor: float) -> Settings:
    made = Settings(home=store.root.parent, quality_floor=floor)
    return made.model_copy(update={"engine": made.engine.model_copy(update={"kv_dtype": kv_dtype})})


def check(store: ModelStore, name: str, *, kv_dtype: str = "auto", **floor: float) -> None:
    check_floor(store, store.find(name), settings(store, kv_dtype=kv_dtype, **floor))


def test_a_good_variant_passes_and_a_planted_bad_one_is_refused_by_metric_value_and_floor(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    derive(store, "ruined", "magnitude:sparsity=0.95")
    bad, _ = certify(store, request(tmp_path, model="ruined"))
    good, _ = certify(store, request(tmp_path, model="small"))
    bound = (good.measured["kl"].value + bad.measured["kl"].value) / 2
    assert good.measured["kl"].value < bound < bad.measured["kl"].value
    check(store, "small", kl=bound, top1=0.01)
    with pytest.raises(
        Incompatible, match=r"'ruined' is below the quality floor: kl is .* at most "
    ) as refused:
        check(store, "ruined", kl=bound)
    assert f"{bad.measured['kl'].value:.4g}" in refused.value.message
    assert f"{bound:g}" in refused.value.message
    with pytest.raises(Incompatible, match=r"top1 is .* at least 1.1"):
        check(store, "small", kl=bound, top1=1.1)


def test_without_a_floor_or_as_its_makers_gave_it_every_model_is_served(store: ModelStore) -> None:
    check(store, "small")
    check(store, "tiny", kl=0.0)


def test_a_derived_model_without_a_certificate_is_refused_with_the_command_that_makes_one(
    store: ModelStore,
) -> None:
    with pytest.raises(Incompatible, match="has no certificate") as refused:
        check(store, "small", kl=0.5)
    assert refused.value.hint == "pentad certify small --text FILE --metric kl makes one"


def test_a_metric_that_the_certificate_does_not_tell_is_no_pass(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    certify(store, request(tmp_path, "size"))
    with pytest.raises(Incompatible, match=r"does not tell kl, the quality floor is at most 0.5"):
        check(store, "small", kl=0.5)


def test_a_certificate_edited_by_hand_or_of_other_bytes_is_no_pass(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    _, path = certify(store, request(tmp_path))
    whole = path.read_text()
    path.write_text(whole.replace('"source":0.0,"value":', '"source":0.0,"value":0'))
    with pytest.raises(BadModelFile, match=r"was changed after it was written|is no certificate"):
        check(store, "small", kl=0.5)
    path.write_text(whole)
    check(store, "small", kl=0.5)
    blob = store.find("small").path.resolve()
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BadModelFile, match="has other bytes than it was stored with"):
        check(store, "small", kl=0.5)


def test_losses_along_a_chain_are_measured_beside_its_beginning(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    from pentad.choice import Choice
    from pentad.model.compression import compress

    compress(
        store, "small", "again", [Choice.of("round-to-nearest:format=F16")], tell=lambda done, total: None
    )
    found, _ = certify(store, request(tmp_path, model="again"))
    assert found.source == "tiny"
    check(store, "again", kl=1.0)


def test_measured_beside_itself_it_is_no_pass(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad
) -> None:
    done = pentad_(
        "certify", "small", "--source", "small", "--text", "text.txt", "--windows", "2",
        "--window-tokens", "16", "--metric", "kl", "--kernels", "torch",
    )  # fmt: skip
    assert done.status == 0, done.err
    with pytest.raises(Incompatible, match="was measured beside 'small', not what it was made from"):
        check(store, "small", kl=0.5)


def test_settings_that_change_answers_need_a_certificate_of_their_own(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(Incompatible, match="'tiny' under kv_dtype int8 has no certificate") as refused:
        check(store, "tiny", kv_dtype="int8", kl=0.5)
    assert "--kv-dtype int8" in str(refused.value.hint)
    found, path = certify(store, request(tmp_path, model="tiny"), weight_dtype="bfloat16")
    assert found.settings == {"weight_dtype": "bfloat16"}
    assert found.source == "tiny"
    settings_of_engine = settings(store, kl=10.0).engine.model_copy(update={"weight_dtype": "bfloat16"})
    served = settings(store, kl=10.0).model_copy(update={"engine": settings_of_engine})
    check_floor(store, store.find("tiny"), served)
    with pytest.raises(
        Incompatible, match="'tiny' under weight_dtype bfloat16 is below the quality floor: top1"
    ):
        check_floor(store, store.find("tiny"), served.model_copy(update={"quality_floor": {"top1": 1.1}}))
    path.unlink()
    with pytest.raises(Incompatible, match="has no certificate"):
        check_floor(store, store.find("tiny"), served)


def test_a_floor_is_set_by_flag_environment_or_file() -> None:
    for given in ("kl=0.05,perplexity_ratio=1.02", {"kl": 0.05, "perplexity-ratio": 1.02}):
        found = resolve({"quality_floor": given}, env={}).settings.quality_floor
        assert found == {"kl": 0.05, "perplexity-ratio": 1.02}
    with pytest.raises(InvalidRequest, match="quality_floor"):
        resolve({"quality_floor": "kl=little"}, env={})


def test_a_floor_for_a_metric_that_there_is_not_is_refused(store: ModelStore) -> None:
    with pytest.raises(UnknownName, match="unknown metric 'beauty'"):
        check(store, "tiny", beauty=1.0)


def test_the_model_is_not_loaded_and_the_verbs_show_why(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENTAD_QUALITY_FLOOR", "kl=0.5")
    refused = pentad_("run", "small", "hello", "--kernels", "torch", "--max-tokens", "1")
    assert refused.status == 2
    assert "model 'small' has no certificate" in refused.err
    assert "pentad certify small" in refused.err
    line = listed(pentad_)
    assert "no" in line
    certify(store, request(tmp_path))
    assert "kl " in " ".join(listed(pentad_))
    shown = pentad_("show", "small").out
    assert "certificate.beside" in shown
    answered: Any = pentad_("run", "small", "hello", "--kernels", "torch", "--max-tokens", "1")
    assert answered.status == 0, answered.err


def listed(pentad_: Pentad) -> list[str]:
    """The words of the line of `small`."""
    return next(line for line in pentad_("list").out.splitlines() if line.startswith("small")).split()
