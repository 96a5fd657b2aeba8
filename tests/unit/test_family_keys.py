"""Keys of a `config.json` that a family does not know are refused, whatever the family."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from pentad.errors import BadModelFile
from pentad.model.families import family_of
from pentad.model.families.base import spec_of_config
from pentad.model.files.fields import Fields

KINDS = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert", "t5"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "ernie4_5_moe", "gpt_oss"),
    *("deepseek_v3", "qwen3_next", "qwen3_5_text", "mamba2", "granitemoehybrid", "lfm2"),
)


def config(kind: str, **more: Any) -> Fields:
    values = transformers.AutoConfig.for_model(kind).to_dict()
    return Fields(source=f"{kind}/config.json", values={**values, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_is_read_and_a_key_of_tomorrow_is_refused_by_name(kind: str) -> None:
    read = config(kind)
    family = family_of(kind, read.source)
    assert spec_of_config(family, read).parameters > 10**6
    with pytest.raises(
        BadModelFile, match=r"'attention_of_tomorrow' is 2, which the '.*' family does not know"
    ):
        spec_of_config(family, config(kind, attention_of_tomorrow=2))
