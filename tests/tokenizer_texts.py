"""Texts on which tokenizers are compared."""

from __future__ import annotations

import pathlib

import pytest

TEXTS = [
    "hello world, it's 1234 o'clock; DON'T, we'll go  \n\n\n home \t z ",
    "   leading, trailing   ",
    "a+b==c ~|x| $5.00 {json: [1,2]} <tag/> `code` \\n",
    "שלום עולם مرحبا بالعالم ١٢٣",
    "👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪 12٣٤½Ⅷ",
    "日本語のテキスト 한국어 中文文本 ไทย",
    "naïve façade — “quotes” … ‽ ﬁ",
    "def f(x):\n\treturn x ** 2  # squared\r\n",
]
CONTROL_TEXTS = ["a<|im_end|>b <|im_start|>system\n", "<|endoftext|>", "<tool_call>\n{}</tool_call>"]


def wikitext() -> list[str]:
    path = pathlib.Path(__file__).parents[2] / "shared" / "data" / "wikitext2-valid.txt"
    if not path.exists():
        pytest.skip(f"the WikiText sample is not at {path}")
    text = path.read_text("utf-8")[:200_000]
    return [text[i : i + 2000] for i in range(0, len(text), 2000)]
