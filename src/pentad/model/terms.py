"""The terms that a text is found by: words where spaces part them, pairs of characters where none do."""

from __future__ import annotations

import itertools
import re
import unicodedata

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul: it has spaces, but endings stick to the words
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_RUN = re.compile(f"[{_UNSPACED}]+")


def terms(text: str) -> str:
    """The text with every run of a script that writes no spaces replaced by its pairs of characters.

    A pair becomes a word of ASCII letters and digits, so that any tokenizer keeps it whole: those
    of SQLite part Thai syllables at their vowels. A Chinese character, which may be a whole word,
    stands for itself too. Indexed texts and queries must both go through here. Other text is only
    normalised (NFKC).
    """
    return _RUN.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", unicodedata.normalize("NFKC", text))


def unspaced_share(text: str) -> float:
    """The share of a text's letters and digits, 0 to 1, that are of scripts without spaces."""
    letters = sum(c.isalnum() or _RUN.match(c) is not None for c in text)
    return sum(map(len, _RUN.findall(text))) / letters if letters else 0.0


def _pairs(run: str) -> list[str]:
    singles = [f"x{ord(c):x}q" for c in run if len(run) == 1 or _HAN.match(c)]
    return [*singles, *(f"x{ord(a):x}z{ord(b):x}q" for a, b in itertools.pairwise(run))]
