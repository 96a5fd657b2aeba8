"""TextStream and the parsers behind it, token by token."""

from __future__ import annotations

import pytest

from chat_support import END, tiny_tokenizer
from pentad.execution.backend import TextDelta
from pentad.execution.batch import Drawn
from pentad.model.backends.parsing import OutputParser
from pentad.model.backends.text import Piece, TextStream
from pentad.model.reasoning.blocks import THINK
from pentad.model.reasoning.splitter import BlockSplitter
from pentad.model.toolcalls import CallParser, choose_format


def pieces(stream: TextStream, text: str) -> list[str]:
    out = []
    for token in tiny_tokenizer().encode(text, special=False):
        ended = stream.accept(Drawn(token=token, logprob=-1.0))
        out.append(stream.take(1).text)
        if ended:
            break
    return [*out, stream.finish().text]


def test_each_token_releases_its_text_at_once_without_stop_strings() -> None:
    assert pieces(TextStream(tiny_tokenizer()), "hello wor!") == ["hello", " wor", "!", ""]


def test_text_waits_for_its_last_byte() -> None:
    assert pieces(TextStream(tiny_tokenizer()), "é!") == ["", "é", "!", ""]


def test_only_a_possible_beginning_of_a_stop_string_is_held_back() -> None:
    stream = TextStream(tiny_tokenizer(), stops=["!?"])
    assert pieces(stream, "ab!c!") == ["a", "b", "", "!c", "", "!"]
    assert stream.stop is None


def test_the_earliest_stop_string_wins() -> None:
    stream = TextStream(tiny_tokenizer(), stops=["!?x", "?"])
    assert "".join(pieces(stream, "ab!?x")) == "ab!"
    assert stream.stop == "?"


def test_stop_strings_count_from_min_tokens_on() -> None:
    stream = TextStream(tiny_tokenizer(), stops=["a"], min_tokens=3)
    assert "".join(pieces(stream, "aabab")) == "aab"


def test_hidden_tokens_show_nothing_and_taking_several_joins_them() -> None:
    stream = TextStream(tiny_tokenizer(), hidden={END}, logprobs=True)
    for token in [*tiny_tokenizer().encode("ab", special=False), END]:
        stream.accept(Drawn(token=token, logprob=-0.5))
    piece = stream.take(3)
    assert piece.text == "ab"
    assert [entry.text for entry in piece.logprobs] == ["a", "b"]


def test_a_spelled_control_token_shows_its_text() -> None:
    stream = TextStream(tiny_tokenizer(), spelled={1})
    stream.accept(Drawn(token=1))
    stream.accept(Drawn(token=0))
    assert stream.take(2).text == "<|im_start|>"


REASONING = [
    ("<think>\n a b \n</think>\n\nanswer", False, "a b", "answer"),
    ("  <think>a</think>b", False, "a", "b"),
    ("a</think>b", True, "a", "b"),
    ("no thoughts <think>here</think>", False, "", "no thoughts <think>here</think>"),
    ("<thin", False, "", "<thin"),
    ("<think>cut off </thi", False, "cut off </thi", ""),
    ("<think></think>x", False, "", "x"),
    ("", True, "", ""),
]


@pytest.mark.parametrize(("text", "opened", "reasoning", "answer"), REASONING)
def test_reasoning_comes_apart_however_the_text_is_cut(
    text: str, opened: bool, reasoning: str, answer: str
) -> None:
    for size in (1, 2, 3, 7, 1000):
        splitter = BlockSplitter(THINK, opened)
        parts = [splitter.feed(text[i : i + size]) for i in range(0, len(text), size)]
        parts.append(splitter.finish())
        assert ("".join(p[0] for p in parts), "".join(p[1] for p in parts)) == (reasoning, answer), size


def test_log_probabilities_are_never_lost_with_text_that_is_held() -> None:
    calls = CallParser(choose_format("hermes", None)[0], {"add": {}}, "r")
    parser = OutputParser(0, calls, None)
    stream = TextStream(tiny_tokenizer(), logprobs=True)
    deltas = []
    for token in tiny_tokenizer().encode("hello <x", special=False):
        stream.accept(Drawn(token=token, logprob=-1.0))
        deltas += parser.feed(stream.take(1))
    deltas += parser.feed(stream.finish())
    deltas += parser.finish()
    assert "".join(d.text for d in deltas if isinstance(d, TextDelta)) == "hello <x"
    entries = [e.text for d in deltas if isinstance(d, TextDelta) for e in d.logprobs]
    assert "".join(entries) == "hello <x"


def test_reasoning_and_calls_combine() -> None:
    calls = CallParser(choose_format("hermes", None)[0], {"add": {}}, "r", 2)
    parser = OutputParser(2, calls, BlockSplitter(THINK, False))
    text = '<think>plan</think>ok <tool_call>{"name": "add", "arguments": {}}</tool_call>'
    deltas = [delta for char in text for delta in parser.feed(Piece(char))] + parser.finish()
    kinds = {(d.kind, d.choice) for d in deltas if isinstance(d, TextDelta)}
    assert kinds == {("reasoning", 2), ("text", 2)}
    assert parser.made_calls
