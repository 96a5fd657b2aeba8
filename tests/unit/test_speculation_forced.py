"""Jumping forward: forced text is drafted, whole and as it is, and changes no token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from chat_support import END, tiny_tokenizer
from pentad.execution.request import ForcingConstraint
from pentad.execution.speculation.stage import Speculation
from pentad.model.matchers import Matchers
from pentad.model.speculation.forced import Forced
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import ToyRunner

VOCAB = 97
PATTERN: tuple[int | None, ...] = (3, 5, 7, 11, None, 13, 17, None)
"""Forced tokens, and two that are free, again and again."""


class Form:
    """A constraint of forced runs with free tokens between them."""

    def __init__(self, at: int = 0, wrong: bool = False) -> None:
        self.at = at
        self.wrong = wrong

    def mask(self) -> npt.NDArray[np.uint32]:
        token = PATTERN[self.at % len(PATTERN)]
        bits = np.full(-(-VOCAB // 32), 0xFFFF_FFFF if token is None else 0, np.uint32)
        if token is not None:
            bits[token // 32] = 1 << token % 32
        return bits

    def accept(self, token: int) -> None:
        wanted = PATTERN[self.at % len(PATTERN)]
        if wanted is not None and token != wanted:
            raise ValueError(f"token {token} does not fit")
        self.at += 1

    def finished(self) -> bool:
        return False

    def fork(self) -> Form:
        return Form(self.at, self.wrong)

    def forced(self) -> Sequence[int]:
        found: list[int] = []
        for i in range(self.at, self.at + len(PATTERN)):
            token = PATTERN[i % len(PATTERN)]
            if token is None:
                break
            found.append(1 if self.wrong else token)
        return found


def answered(form: Form, *, jumps: bool) -> tuple[list[int], float]:
    speculation = Speculation(Forced().start(VOCAB, ()), adaptive=False) if jumps else None
    engine = toy_engine(Sarathi(), runner=ToyRunner(vocab_size=VOCAB), speculation=speculation)
    answer = run(engine, token_request("q/0", (1, 2, 3), 48, constraint=form))["q/0"]
    return answer.tokens, engine.stats()["steps_total"]


def test_forced_tokens_take_one_step_together_and_are_those_of_plain_decoding() -> None:
    """Of each eight tokens two are free: three steps are enough where there were eight."""
    plain, steps = answered(Form(), jumps=False)
    jumped, fewer = answered(Form(), jumps=True)
    assert jumped == plain
    assert steps / fewer >= 2


def test_text_cut_into_other_tokens_than_the_format_allows_costs_its_draft_only() -> None:
    plain, steps = answered(Form(), jumps=False)
    jumped, as_many = answered(Form(wrong=True), jumps=True)
    assert (jumped, as_many) == (plain, steps)


def test_a_grammar_tells_its_forced_text_but_for_the_token_that_may_go_on() -> None:
    codec = tiny_tokenizer()
    constraint = Matchers(codec, {END}).start(LLMatcher.grammar_from_regex("order: (a|b)c"), 1)
    assert isinstance(constraint, ForcingConstraint)
    tokens = codec.encode("order: ", special=False)
    assert list(constraint.forced()) == list(tokens[:-1])
    constraint.accept(tokens[0])
    assert list(constraint.forced()) == list(tokens[1:-1])
    for token in tokens[1:]:
        constraint.accept(token)
    assert not constraint.forced(), "either letter may follow"
