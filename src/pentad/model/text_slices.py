"""Long texts in slices that have the same tokens apart as together.

The tokenizer's library holds the interpreter for as long as it encodes, so what it is given at once
decides how long everybody else waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

SLICE_CHARS = 1024
"""A few milliseconds of encoding."""
_WINDOW_CHARS = 16 * SLICE_CHARS
"""A slice without a boundary for that long is cut anyway: only its tokens at the cut may differ."""
_BOUNDARY = re.compile(r"(?<=\S)(?= \S)|(?<=\S\n)(?=\S)")
"""Before a word and behind a line: places that no pre-tokenizer of a byte-level vocabulary joins."""
_PROBE = "ab cd\nef, gh.\nij 12 \u4e2d\u6587 (kl) 'm 3\nN_o\t p  q"


def slices(text: str) -> Iterator[str]:
    """The text in pieces of about `SLICE_CHARS` characters, cut at boundaries."""
    start = 0
    while len(text) - start > 2 * SLICE_CHARS:
        found = _BOUNDARY.search(text, start + SLICE_CHARS, start + _WINDOW_CHARS)
        end = min(found.start() if found else start + _WINDOW_CHARS, len(text))
        yield text[start:end]
        start = end
    yield text[start:]


def sliceable(encode: Callable[[str], Sequence[int]], added: Sequence[str]) -> bool:
    """Whether texts may be encoded in slices.

    Args:
        encode: the tokens of a text.
        added: texts that are one token each, whatever stands around them.
    """
    if any(re.search(r"\s", text.strip(" ")) or text != text.strip(" ") for text in added):
        return False
    whole = list(encode(_PROBE))
    cuts = [found.start() for found in _BOUNDARY.finditer(_PROBE)]
    return all([*encode(_PROBE[:cut]), *encode(_PROBE[cut:])] == whole for cut in cuts)
