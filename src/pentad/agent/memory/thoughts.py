"""Thoughts: questions thought through ahead, without their answers; what agrees with itself is recalled."""

from __future__ import annotations

import hashlib
import math
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.memory.base import Experience, Item, MemoryServices, Occasion, Recollection, Sample, Scope
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.agent.planning.final_answer import canonical_answer, final_answer
from pentad.errors import NotFound
from pentad.ranges import in_range

_THINK = "Reason step by step and end with a line `answer: ...`."
_CHOOSE = (
    "Which of the numbered questions is solved like the new question? Answer with their numbers, "
    "the most helpful first, or with none."
)
_SHOWN = 4
"""Candidates, at most, that the model chooses among, for each thought asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughts:
    """Keeps trains of thought whose answers agree, and recalls those that the model finds alike.

    When a run ends its goal is thought through `samples` times more by the run's own model, and so are the
    next `ahead` of the file `questions`; nobody tells the right answers. A thought is kept where the answers'
    entropy is at most `entropy`. When a run begins the model chooses among the nearest questions; their
    thoughts stand in its prompts as solved examples. Plain facts are kept and recalled as `store` does.

    Source: Li and Qiu 2023, "MoT: Memory-of-Thought Enables ChatGPT to Self-Improve", sections 3.1 and 3.2.
    Ours lets the model choose from one list in place of one per cluster. Exactness: lossy; the metric is
    accuracy beside plain chains of thought. Cost: a model call of `samples` answers per question, one short
    call per run that begins.
    """

    samples: int = 5
    """Thoughts drawn for each question."""
    temperature: float = 0.7
    """At which they are drawn; above 0, at most 2."""
    entropy: float = 0.6
    """Of the answers, in nats, up to which a thought is kept; 0 keeps only unanimous ones."""
    questions: str = ""
    """A text file with a question per line that is thought about ahead; empty has none."""
    ahead: int = 4
    """Questions of that file that a run which ends goes on with, at most."""
    thought_tokens: int = 320
    """Of one thought, at most."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "thoughts"

    def __post_init__(self) -> None:
        in_range("samples", self.samples, least=2)
        in_range("temperature", self.temperature, above=0, most=2)
        in_range("entropy", self.entropy, least=0)
        in_range("ahead", self.ahead, least=0)
        in_range("thought_tokens", self.thought_tokens, least=1)

    def open(self, services: MemoryServices) -> _Thinking:
        """The file's items. Raises NotFound: no such file of questions."""
        return _Thinking(self, services)


class _Thinking(Wrapped):
    def __init__(self, strategy: Thoughts, services: MemoryServices) -> None:
        super().__init__(Store().open(services))
        self._strategy = strategy
        self._ahead = _questions(strategy.questions)

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Thinks about the run's goal, then about further questions; each question once."""
        if experience.answered:
            await self._consider(experience.goal, experience, experience.recalled, scope)
        left = self._strategy.ahead
        for question in self._ahead:
            if left < 1:
                break
            left -= await self._consider(question, experience, (), scope)

    async def _consider(
        self, question: str, experience: Experience, recalled: Sequence[str], scope: Scope
    ) -> bool:
        """Thinks about a question that was not thought about; whether it had to."""
        ident = _ident(question)
        if await self.inner.item(ident, scope) is not None:
            return False
        thought, entropy = await self._thought(question, experience.sample)
        item = Item(
            id=ident,
            text=question,
            kind="episode",
            source=experience.run_id,
            derived_from=tuple(recalled),
            details={"thought": thought if entropy <= self._strategy.entropy else "", "entropy": entropy},
        )
        await self.write(item, scope)
        return True

    async def _thought(self, question: str, sample: Sample) -> tuple[str, float]:
        """The first of the thoughts that most agree with, and the entropy of all answers."""
        strategy = self._strategy
        drawn = await sample(
            _THINK,
            question,
            strategy.thought_tokens,
            samples=strategy.samples,
            temperature=strategy.temperature,
        )
        said = [(thought, final_answer(thought)) for thought in drawn]
        answers = [(thought, canonical_answer(answer)) for thought, answer in said if answer is not None]
        if not answers:
            return "", math.inf
        # A thought without an answer agrees with none.
        votes = Counter(answer for _, answer in answers)
        alone = len(drawn) - len(answers)
        shares = [n / len(drawn) for n in (*votes.values(), *[1] * alone)]
        most = votes.most_common(1)[0][0]
        best = next(thought for thought, answer in answers if answer == most)
        return best.strip(), abs(sum(share * math.log(share) for share in shares))

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The nearest facts and kept thoughts."""
        found = await self.inner.query(cue, k=_SHOWN * k, scope=scope)
        return [_told(r) for r in found if r.item.details.get("thought", True)][:k]

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """Those of the nearest thoughts that the model chooses, then plain facts."""
        near = await self.query(occasion.goal, k=_SHOWN * k, scope=scope)
        facts = [r for r in near if "thought" not in r.item.details]
        thoughts = [r for r in near if "thought" in r.item.details]
        shown = thoughts[: _SHOWN * k]
        if not shown:
            return facts[:k]
        lines = [f"{n}. {r.item.details['question']}" for n, r in enumerate(shown, 1)]
        asked = "\n".join([*lines, f"New question: {occasion.goal}"])
        numbers = re.findall(r"\d+", await occasion.think(_CHOOSE, asked, 24))
        chosen = dict.fromkeys(int(n) for n in numbers if 1 <= int(n) <= len(shown))
        return [*(shown[n - 1] for n in chosen), *facts][:k]


def _told(recollection: Recollection) -> Recollection:
    """A thought in words that a model reads, behind its question."""
    item = recollection.item
    if "thought" not in item.details:
        return recollection
    text = f"Question: {item.text}\n{item.details['thought']}"
    details = {**item.details, "question": item.text}
    return replace(recollection, item=replace(item, text=text, details=details))


def _ident(question: str) -> str:
    return f"thought_{hashlib.sha256(question.encode('utf-8', 'replace')).hexdigest()[:24]}"


def _questions(name: str) -> tuple[str, ...]:
    if not name:
        return ()
    try:
        lines = pathlib.Path(name).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise NotFound(
            f"questions {name!r}: {error.strerror or 'cannot be read'}",
            hint="set memory.store.options.questions to a text file with a question per line",
            param="memory",
        ) from None
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
