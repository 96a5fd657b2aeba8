"""Relevance: nearness by vectors or by words, equal for equal input, each text embedded once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pentad.model.relevance import Relevance, shared_words, words

TEXTS = ["prices of shares", "weather in a city", "prices of flights to a city"]


class Counting:
    """An encoder of two axes, price and weather, that counts what it embeds."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[2.0 * ("price" in t), 1.0 * ("weather" in t)] for t in texts]


def scores(relevance: Relevance, cues: Sequence[str], texts: Sequence[str] = TEXTS) -> list[float]:
    return asyncio.run(relevance.scores(cues, texts))


def test_vectors_score_by_their_angle_and_the_nearest_cue_counts() -> None:
    relevance = Relevance(Counting(), encoder="two")
    assert relevance.method == "embedding two"
    near, words = 1 / 1.3, shared_words("a price", TEXTS)
    wanted = [near + 0.3 / 1.3 * words[0], 0.3 / 1.3 * words[1], near + 0.3 / 1.3 * words[2]]
    assert scores(relevance, ["a price"]) == pytest.approx(wanted)
    both = scores(relevance, ["a price", "the weather"])
    assert both[0] == pytest.approx(wanted[0])
    assert both[1] > near
    assert scores(relevance, ["neither"]) == [0, 0, 0]


def test_a_text_is_embedded_once_while_it_is_kept() -> None:
    encoder = Counting()
    relevance = Relevance(encoder, most_kept=4)
    scores(relevance, ["a price"])
    scores(relevance, ["a price"])
    assert sorted(encoder.asked) == sorted(["a price", *TEXTS])
    scores(relevance, ["x", "y", "z"])
    assert len(relevance._kept) == 4


def test_words_score_by_the_rare_ones_and_by_their_stem() -> None:
    assert Relevance(None).method == "words"
    price, weather, flight = shared_words("the price of a flight", TEXTS)
    assert flight > price > weather
    assert shared_words("Flights!", TEXTS)[2] == 1.0
    assert shared_words("nothing here", ["other"]) == [0.0]


def test_names_in_code_and_scripts_without_spaces_have_words_too() -> None:
    assert words("getStockPrice book_tables") == ["get", "stock", "pric", "book", "tabl"]
    assert shared_words("天気", ["天気予報", "株価"]) == [1.0, 0.0]


def test_nothing_asked_or_nothing_there_scores_nothing() -> None:
    for relevance in (Relevance(None), Relevance(Counting())):
        assert scores(relevance, []) == scores(relevance, ["  "]) == [0, 0, 0]
        assert scores(relevance, ["a"], []) == []
        assert scores(relevance, ["a price"], ["", "price"])[0] == 0
