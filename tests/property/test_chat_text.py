"""Whatever the tokens and stop strings: the text shown is the text up to the first stop string."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from chat_support import tiny_tokenizer
from pentad.execution.batch import Drawn
from pentad.model.backends.text import TextStream
from pentad.model.reasoning.blocks import THINK
from pentad.model.reasoning.splitter import BlockSplitter

TEXT = st.text(alphabet="abé日\N{WOMAN}\u200d hel lo", max_size=40)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Cut at the first stop string that is complete, reading character by character."""
    for end in range(1, len(text) + 1):
        found = [(text.find(s, 0, end), i) for i, s in enumerate(stops) if s in text[:end]]
        if found:
            at, first = min(found)
            return text[:at], stops[first]
    return text, None


@settings(max_examples=300, deadline=None)
@given(text=TEXT, stops=st.lists(st.text(alphabet="abé日h", min_size=1, max_size=4), max_size=3))
def test_bytes_one_by_one_show_the_text_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    tokenizer = tiny_tokenizer()
    stream = TextStream(tokenizer, stops=stops, logprobs=True)
    shown, entries = "", []
    # One token per byte, so that every character is split.
    ids = [tokenizer.backend.token_to_id(letter) for letter in _letters(text)]
    for token in ids:
        ended = stream.accept(Drawn(token=token, logprob=-1.0))
        piece = stream.take(1)
        shown += piece.text
        entries += piece.logprobs
        if ended:
            break
    tail = stream.finish()
    want, stop = expected(text, stops)
    assert (shown + tail.text, stream.stop) == (want, stop)
    assert b"".join(e.data for e in [*entries, *tail.logprobs]) == want.encode()


def _letters(text: str) -> list[str]:
    from pentad.model.tokenizer import BYTE_LETTERS

    letters = {byte: letter for letter, byte in BYTE_LETTERS.items()}
    return [letters[byte] for byte in text.encode()]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="<think>/ a\n", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    opened=st.booleans(),
)
def test_reasoning_is_split_the_same_however_the_text_is_cut(
    text: str, cuts: list[int], opened: bool
) -> None:
    def split(pieces: list[str]) -> tuple[str, str]:
        splitter = BlockSplitter(THINK, opened)
        parts = [splitter.feed(piece) for piece in pieces]
        parts.append(splitter.finish())
        return "".join(p[0] for p in parts), "".join(p[1] for p in parts)

    marks = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert split([text[a:b] for a, b in itertools.pairwise(marks)]) == split([text])
