"""YAML without what it lets a text hide: bombs, loops and keys that take each other's place."""

from __future__ import annotations

import time

import pytest

from pentad.yaml_text import read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
)
MERGES = "\n".join(
    ["m0: &m0 {k0: 1}"]
    + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 8)}], k{i}: 1}}" for i in range(1, 14)]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "line 1, column 4: the value holds itself"),
        ("a: &a {b: {<<: *a}}", "the value holds itself"),
        (LAUGHS, "stand for more than 20000 values"),
        (MERGES, "stand for more than 20000 values"),
        ("name: a\nbudget: {}\nname: b", "line 3, column 1: the key 'name' stands already in line 1"),
        ("a: {b: 1, c: 2, b: 3}", "the key 'b' stands already in line 1"),
        ("[" * 200 + "]" * 200, "nested deeper than 64 levels"),
        ("[" * 50_000, "nested deeper than 64 levels"),
        ("- x\n" * 70_000, "more than 20000 values"),
        ("a: b: c", "mapping values are not allowed"),
        ("!!python/object/apply:os.system ['id']", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "but found another document"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " "),
)
def test_what_a_text_hides_is_refused_at_once(text: str, says: str) -> None:
    began_s = time.process_time()
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_yaml(text)
    assert says in str(caught.value)
    assert time.process_time() - began_s < 10


def test_anchors_and_merges_that_stay_small_mean_what_they_say() -> None:
    text = "base: &b {k: 1, l: 2}\nmore: {<<: *b, k: 3}\nlist: [*b, *b]"
    assert read_yaml(text) == {
        "base": {"k": 1, "l": 2},
        "more": {"k": 3, "l": 2},
        "list": [{"k": 1, "l": 2}, {"k": 1, "l": 2}],
    }
    assert read_yaml("") is None
    assert read_yaml("# nothing") is None
