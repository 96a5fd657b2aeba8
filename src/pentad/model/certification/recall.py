"""Long-context recall: what stands somewhere in a long text is found again at its end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import Incompatible
from pentad.model.certification.base import Bench, Better, Measured, Row, Subject
from pentad.model.certification.logits import logits_of
from pentad.model.intervals import wilson
from pentad.ranges import in_range

_PEOPLE = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gina",
    "Hugo",
    "Ida",
    "Jan",
    "Kira",
    "Leo",
    "Mia",
    "Nils",
)
_THINGS = (
    "garden",
    "harbour",
    "library",
    "kitchen",
    "station",
    "tower",
    "bridge",
    "market",
    "museum",
    "theatre",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallProbe:
    """Texts of numbered facts up to a length, each asked for some of them behind it, teacher-forced."""

    texts: int = 4
    questions: int = 8
    context_tokens: int = 1024

    @property
    def key(self) -> str:
        return f"recall-{self.texts}-{self.questions}-{self.context_tokens}"

    def units(self, bench: Bench) -> int:
        context = bench.derived.files.spec.context_length
        if self.context_tokens > context:
            raise Incompatible(
                f"recall is measured over {self.context_tokens} tokens, the model's context has {context}",
                hint=f"set --metric recall:context_tokens={context}, or leave recall out",
                param="metric",
            )
        return self.texts

    def measure(self, bench: Bench, unit: int) -> Row:
        """How many questions each model answers: all tokens of the code are its first choice."""
        chance = random.Random(f"{bench.seed}-{unit}")
        facts = self._facts(bench, chance)
        asked = chance.sample(facts, min(self.questions, len(facts)))
        text = "".join(f"The code of the {thing} of {who} is {code}.\n" for who, thing, code in facts)
        prompt = bench.derived.files.tokenizer.encode(text, special=False)
        row = {"asked": float(len(asked))}
        for field, subject in (("source_recalled", bench.source), ("recalled", bench.derived)):
            for _ in logits_of(subject.runner(), prompt):
                pass
            row[field] = float(sum(self._recalled(subject, len(prompt), fact) for fact in asked))
        return row

    def data(self, bench: Bench) -> Mapping[str, str]:  # noqa: ARG002
        return {}

    def _facts(self, bench: Bench, chance: random.Random) -> list[tuple[str, str, str]]:
        """As many as fit, with room for a question."""
        pairs = [(who, thing) for who in _PEOPLE for thing in _THINGS]
        chance.shuffle(pairs)
        facts, left = [], self.context_tokens - 48
        for who, thing in pairs:
            code = f"{chance.randrange(10**4):04}"
            line = f"The code of the {thing} of {who} is {code}.\n"
            left -= len(bench.derived.files.tokenizer.encode(line, special=False)) + 1
            if left < 0:
                break
            facts.append((who, thing, code))
        return facts

    def _recalled(self, subject: Subject, start: int, fact: tuple[str, str, str]) -> bool:
        who, thing, code = fact
        encode = subject.files.tokenizer.encode
        asked = encode(f"The code of the {thing} of {who} is", special=False)
        whole = encode(f"The code of the {thing} of {who} is {code}", special=False)
        at = next((i for i, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), len(asked))
        choices = [
            int(token) for rows in logits_of(subject.runner(), whole[:-1], start) for token in rows.argmax(-1)
        ]
        return choices[at - 1 :] == list(whole[at:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Share of facts in a long text that the model gives again when it is asked behind the text.

    The interval is Wilson's over questions.
    """

    context_tokens: int = 1024
    """Of a text, 128 or more."""
    texts: int = 4
    """1 or more."""

    name: ClassVar[str] = "recall"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("context_tokens", self.context_tokens, least=128, most=10**7)
        in_range("texts", self.texts, least=1, most=1000)

    @property
    def probe(self) -> RecallProbe:
        return RecallProbe(texts=self.texts, context_tokens=self.context_tokens)

    def value(self, rows: Sequence[Row]) -> Measured:
        asked = round(sum(row["asked"] for row in rows))
        found = round(sum(row["recalled"] for row in rows))
        low, high = wilson(found, asked)
        return Measured(
            value=found / asked,
            low=low,
            high=high,
            interval="95%, Wilson over questions",
            count=asked,
            source=sum(row["source_recalled"] for row in rows) / asked,
        )
