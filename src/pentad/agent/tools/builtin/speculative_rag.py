"""speculative_rag: a small model drafts answers from parts of the passages; the run's model picks one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.tools.base import AskOther, Sourced, Tool, ToolContext, ToolServices
from pentad.agent.tools.builtin.question_answering import question_tool
from pentad.agent.tools.documents import Documents, Passage, folder_option
from pentad.agent.tools.passage_subsets import clusters, subsets, word_vectors
from pentad.errors import InvalidRequest, ToolFailed
from pentad.model.reduction.base import Surprise
from pentad.ranges import in_range
from pentad.types import Decision

_SYSTEM = (
    "Answer the question from the passages. Write two lines: `Rationale:` what in the passages says so, in "
    "one sentence, then `Answer:` the answer in a few words. If they do not say, answer: not found."
)
_DRAFT = re.compile(r"rationale:\s*(?P<why>.*?)\s*answer:\s*(?P<answer>.+)", re.IGNORECASE | re.DOTALL)
_SUPPORTED = "\nDoes the rationale support the answer? Yes"
_NOTHING = "not found"


def build(
    services: ToolServices,
    *,
    folder: str = "",
    drafter: str = "",
    k: int = 6,
    drafts: int = 3,
    per_draft: int = 2,
    max_tokens: int = 96,
) -> Tool:
    """The tool over one folder, on the run's budget.

    The `k` passages found are parted into `per_draft` clusters by their words; each draft reads one passage
    of every cluster, so that none reads the same thing twice and all are short. The drafts are asked at
    once. The run's model reads each draft with its rationale in one pass that writes nothing, and scores it
    by how likely both are to it and how likely it says that the one supports the other.

    Source: Wang et al. 2024, "Speculative RAG", section 3. Ours clusters by words and not by an encoder that
    follows instructions, takes means over tokens where theirs takes products, so that a long rationale is
    not punished, and leaves out the drafter's own probability. Exactness: lossy; the metric is accuracy
    beside one prompt with all passages (`question_answering`). Cost: `drafts` short answers of the drafter
    and as many passes of the model.

    Args:
        folder: of .txt, .md and .rst files.
        drafter: a served model that writes the drafts; empty takes the run's own.
        k: passages that are found.
        drafts: how many are written, at most; different parts of the passages there may be fewer.
        per_draft: passages that a draft reads.
        max_tokens: of a draft.

    Raises InvalidRequest: no such model, or a number out of its range.
    """
    documents = Documents(folder_option(folder, "speculative_rag"), services.models)
    for name, value in (("k", k), ("drafts", drafts), ("per_draft", per_draft), ("max_tokens", max_tokens)):
        in_range(f"tool_options.speculative_rag.{name}", value, least=1)
    served = [card.name for card in services.models.models() if card.kind == "generate"]
    if drafter and drafter not in served:
        raise InvalidRequest(
            f"no model {drafter!r} drafts here",
            hint=f"served: {', '.join(served)}",
            param="tool_options.speculative_rag.drafter",
        )

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str | Sourced:
        question = arguments["question"]
        found = await documents.search(question, k)
        if not found:
            return "The documents say nothing about it."
        if context.ask_other is None or context.surprise is None:
            raise ToolFailed("speculative_rag needs a model")
        groups = clusters(word_vectors([p.text for p in found]), per_draft)
        parts = [[found[i] for i in part] for part in subsets(groups, drafts)]
        return await _answer(question, parts, context.ask_other, context.surprise, drafter, max_tokens)

    return question_tool("speculative_rag", call)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    why: str
    answer: str
    passages: Sequence[Passage]


async def _answer(
    question: str,
    parts: Sequence[Sequence[Passage]],
    ask: AskOther,
    surprise: Surprise,
    drafter: str,
    max_tokens: int,
) -> str | Sourced:
    async def one(part: Sequence[Passage]) -> _Candidate | None:
        text = "\n\n".join(p.text for p in part)
        said = await ask(drafter, _SYSTEM, f"{text}\n\nQuestion: {question}", max_tokens)
        return _read(said, part)

    drafted = [draft for draft in await asyncio.gather(*map(one, parts)) if draft is not None]
    if not drafted:
        return "The passages that were found do not answer it."
    scores = await asyncio.gather(*(_score(question, draft, surprise) for draft in drafted))
    known = [i for i, score in enumerate(scores) if score is not None]
    if not known:
        raise ToolFailed("the run's model scores no texts, so no draft can be picked; use question_answering")
    best = max(known, key=lambda i: (scores[i], -i))
    sources = ", ".join(dict.fromkeys(p.source for p in drafted[best].passages))
    return Sourced(
        content=f"{drafted[best].answer} (from {sources})",
        source=f"one of {len(parts)} drafts",
        decisions=(
            Decision(
                layer="agent",
                policy="speculative_rag",
                subject="draft",
                chosen=drafted[best].answer,
                candidates=tuple(
                    (draft.answer, None if score is None else round(score, 4))
                    for draft, score in zip(drafted, scores, strict=True)
                ),
                constraint=None
                if len(drafted) == len(parts)
                else f"{len(drafted)} of {len(parts)} drafts were of use",
            ),
        ),
    )


def _read(said: str, part: Sequence[Passage]) -> _Candidate | None:
    """A draft that answers; None for one that is no draft, or says that its passages do not tell."""
    found = _DRAFT.search(said)
    if found is None or found["answer"].strip().lower().startswith(_NOTHING):
        return None
    return _Candidate(why=found["why"], answer=found["answer"].strip().splitlines()[0].strip(), passages=part)


async def _score(question: str, draft: _Candidate, surprise: Surprise) -> float | None:
    """Mean log-likelihood of rationale and answer, and of "Yes" behind them, in nats; at most 0.

    None where the model tells nothing of them.
    """
    asked = f"Question: {question}\n"
    drafted = f"Rationale: {draft.why}\nAnswer: {draft.answer}"
    tokens = await surprise(f"{asked}{drafted}{_SUPPORTED}", "")
    yes = len(asked) + len(drafted) + len(_SUPPORTED) - len("Yes")
    consistent = [s for begin, _, s in tokens if len(asked) <= begin < len(asked) + len(drafted)]
    supported = [s for _, end, s in tokens if end > yes]
    if not consistent or not supported:
        return None
    return -(sum(consistent) / len(consistent) + sum(supported) / len(supported))
