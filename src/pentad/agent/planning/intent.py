"""Whether a goal asks for something to be done, or only to be told something."""

from __future__ import annotations

import re

_SENTENCES = re.compile(r"(?<=[.!?？！。；;؟])\s+|(?<=[？！。؟])|\n+")
_CLAUSES = re.compile(r",?\s+(?:and|but)?\s*then\s+|,\s+(?:and|but)\s+|;\s*", re.IGNORECASE)
_POLITE = re.compile(
    r"(?:please,?|kindly|(?:can|could|would|will) you|i(?:'d| would) like you to|i (?:want|need) you to|"
    r"go ahead and|let(?:'s| us))\s+",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"(?:what|which|who|whose|whom|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|"
    r"should|would|will|may|might|am|tell|say|show|list|name|find|look|check|count|compute|calculate|compare|"
    r"explain|describe|give me|read|search|summari[sz]e)\b(?!-)|what's|who's|how's|where's",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r",?\s+and\s+(?=(?:what|which|who|whose|when|where|how)\b)|,\s+(?=(?:what|which|who|whose|when|where|how)\b)",
    re.IGNORECASE,
)
_QUESTION_MARKS = ("?", "？", "؟")


def asks_for_change(goal: str) -> bool:
    """Whether some sentence of the goal may tell the agent to do something beyond finding out.

    A sentence that ends in a question mark or begins as a question or a request to be told only
    asks, unless a polite form (`could you`, `please`) introduces something else. Whatever else it
    is, a statement or a command, may ask for a change. Written for English; in other languages the
    question mark alone decides.
    """
    return any(_changes(sentence) for sentence in _SENTENCES.split(goal) if sentence and sentence.strip())


def parts(goal: str) -> int:
    """How many things the goal asks for, as far as question words and sentences tell; at least 1."""
    asked = [
        part
        for sentence in _SENTENCES.split(goal)
        for part in _PARTS.split(sentence or "")
        if _ASKS.match(_POLITE.sub("", part.strip(" ,¿"), count=1))
    ]
    return max(1, len(asked))


def _changes(sentence: str) -> bool:
    sentence = sentence.strip()
    question = sentence.endswith(_QUESTION_MARKS)
    for clause in _CLAUSES.split(sentence):
        words = clause.strip(" ,\"'“”«»¿¡")
        polite = _POLITE.match(words)
        while polite is not None:
            words = words[polite.end() :]
            if _POLITE.match(words) is None:
                break
            polite = _POLITE.match(words)
        if not words or _ASKS.match(words):
            continue
        if polite is not None or not question:
            return True
    return False
