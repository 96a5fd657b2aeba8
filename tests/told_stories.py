"""Long conversations in which many stories are told by turns, and questions whose evidence is known."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch_reference import DATA

CONVERSATIONS = 25
TURNS = 10_000
"""Of all conversations together."""
_AT_ONCE = 3
"""Stories that are under way at once, so that the turns of one lie apart."""


@dataclass(frozen=True)
class Question:
    """What is asked, and the turns that tell it, as places in `Told.turns`."""

    text: str
    evidence: frozenset[int]


@dataclass(frozen=True)
class Told:
    """Turns in the order in which they were said, and what may be asked about them."""

    turns: tuple[str, ...]
    questions: tuple[Question, ...]


def told(seed: int = 11) -> Told:
    """Stories of GSM8K told sentence by sentence, three at once, between remarks out of WikiText and BFCL.

    The last sentence of a story, which asks, is the question; the sentences before are its evidence.
    Stories of one sentence, and questions that stand twice, are left out. The same for the same seed.
    """
    source = random.Random(seed)
    stories = list(_stories())
    source.shuffle(stories)
    shares = [stories[number::CONVERSATIONS] for number in range(CONVERSATIONS)]
    remarks = iter(_remarks(source))
    total = sum(len(sentences) - 1 for sentences in stories)
    # A remark or two stand behind each turn of a story, so that all together are TURNS.
    between = [(TURNS - total) // total + (n < (TURNS - total) % total) for n in range(total)]
    source.shuffle(between)
    turns: list[str] = []
    questions: list[Question] = []
    for share in shares:
        evidence: dict[int, list[int]] = {}
        for story, sentence in _interleaved(share, source):
            evidence.setdefault(story, []).append(len(turns))
            turns.append(sentence)
            turns += [next(remarks) for _ in range(between.pop())]
        questions += [Question(share[n][-1], frozenset(places)) for n, places in evidence.items()]
    return Told(tuple(turns), tuple(questions))


def _interleaved(stories: list[list[str]], source: random.Random) -> Iterator[tuple[int, str]]:
    """The sentences of the stories but their last, each with the story's number."""
    waiting = list(range(len(stories)))
    open_now: dict[int, int] = {}
    while waiting or open_now:
        while waiting and len(open_now) < _AT_ONCE:
            open_now[waiting.pop(0)] = 0
        number = source.choice(list(open_now))
        at = open_now[number]
        yield number, stories[number][at]
        if at + 2 == len(stories[number]):
            del open_now[number]
        else:
            open_now[number] = at + 1


def _stories() -> Iterator[list[str]]:
    asked = set()
    for line in (DATA / "gsm8k-dev.jsonl").read_text("utf-8").splitlines():
        sentences = re.split(r"(?<=[.?!])\s+", json.loads(line)["question"].strip())
        if len(sentences) >= 3 and sentences[-1].endswith("?") and sentences[-1] not in asked:
            asked.add(sentences[-1])
            yield sentences


def _remarks(source: random.Random) -> list[str]:
    """Sentences of WikiText, and requests for tools out of BFCL."""
    text = (DATA / "wikitext2-valid.txt").read_text("utf-8").replace(" @-@ ", "-").replace(" @,@ ", ",")
    found = [s.strip() for line in text.splitlines() for s in re.split(r"(?<= [.?!;]) ", line)]
    said = [s for s in dict.fromkeys(found) if 4 <= len(s.split()) <= 60 and not s.startswith("=")]
    for name in ("simple_python", "multiple"):
        lines = (DATA / f"bfcl-v4-{name}.jsonl").read_text("utf-8").splitlines()
        said += [json.loads(line)["question"][0][0]["content"] for line in lines]
    source.shuffle(said)
    return said
