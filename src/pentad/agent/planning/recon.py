"""Recon: what one thinks, what one would say, how others would take it, and only then what is said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.base import (
    Answers,
    Decided,
    Draft,
    ModelCallDraft,
    Reading,
    Selection,
    Thought,
    Unusable,
    View,
    majority,
)
from pentad.agent.planning.thoughts import chose, labelled, lost, think
from pentad.agent.planning.turns import conversation
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.ranges import in_range

_THOUGHT, _SPEECH, _PERCEPTION, _REFINED, _SAID = "thought", "speech", "perception", "refined", "said"
_ASKS: Mapping[str, str] = {
    _THOUGHT: "Think to yourself, unheard by others: what does each of the others know, want and hide? What "
    "do you want to reach, and what must nobody learn?",
    _SPEECH: "Write what you would say to the others now. They hear only this.",
    _PERCEPTION: "Put yourself in the place of each of the others who hears this speech. What would they "
    "conclude about you and about what you hide?",
    _REFINED: "Write the speech anew, so that it reaches what you want and gives away nothing that you hide. "
    "Write only the words to be said.",
}
_STAGES = (_THOUGHT, _SPEECH, _PERCEPTION, _REFINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recon:
    """Drafts a thought and a speech, looks at the speech as others would, and refines it before it is said.

    Only the refined speech leaves the run; the rest stays in its journal. What `hides` names is never
    said: a speech that has it is written anew `max_repairs` times, then the sentences with it are left
    out. Where the budget does not pay for all stages, the later ones are left out first, but for the
    check of what is hidden. Tools are not used.

    Source: Wang et al. 2023, "Avalon's Game of Thoughts: Battle Against Deception through Recursive
    Contemplation". Ours takes the second-order view as a stage of its own and checks what is hidden
    without a model.
    """

    hides: tuple[str, ...] = ()
    """Words and names that the speech must not have, e.g. one's role; upper and lower case are the same."""
    think_tokens: int = 160
    """Of one thought, at most."""
    max_repairs: int = 2
    """Times that a speech which gives something away is written anew."""

    name = "recon"

    def __post_init__(self) -> None:
        in_range("think_tokens", self.think_tokens, least=1)
        in_range("max_repairs", self.max_repairs, least=0)

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:  # noqa: ARG002
        """All tools: it only speaks."""
        return {tool.name: f"planner {self.name} only speaks" for tool in tools}

    def exhausted(self, state: RunState) -> bool:
        """Whether the model had nothing to say too often."""
        empty = [e for e in state.closed if e.outcome == "failed" and not e.text.strip()]
        return len(empty) > self.max_repairs

    def draft(self, view: View) -> Draft:
        """The next stage; the speech itself once it is refined, or once it can no longer be."""
        state = view.state
        refined, speech = labelled(state, _REFINED), labelled(state, _SPEECH)
        if refined:
            return self._say(refined[-1].text)
        spoken = [e.text for e in state.closed if e.label in (_SPEECH, _REFINED) and e.text.strip()]
        last_step = state.step >= state.spec.max_steps
        over = lost(state, _REFINED) > self.max_repairs
        if spoken and (last_step or over or not bounded(state, self.think_tokens, least=0)):
            return self._say(spoken[-1])
        if last_step or not bounded(state, self.think_tokens, least=2 if not speech else 1):
            draft = self._stage(view, _REFINED)
            # What may give something away must not pass for the answer of a run that ends before its check.
            return draft if self.hides else replace(draft, purpose="answer", label=_SAID)
        return self._stage(view, next(stage for stage in _STAGES if not labelled(state, stage)))

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:  # noqa: ARG002
        """The speech that most agree with."""
        return majority(self.name, candidates)

    def read(self, view: View, answer: Exchange) -> Reading:  # noqa: ARG002
        """Each stage is a thought; what is said is the answer."""
        text = answer.text.strip()
        if answer.calls or not text:
            return Unusable(problem="nothing was said")
        if answer.label in (_REFINED, _SAID) and (named := self._named(text)):
            return Unusable(problem=f"it gives away: {', '.join(named)}")
        if answer.label == _SAID or answer.purpose == "answer":
            return Answers(text=text)
        bound = f"must not say {len(self.hides)} things" if self.hides else None
        return Thought(decisions=(chose(self.name, answer.label or "stage", text[:200], constraint=bound),))

    def _stage(self, view: View, stage: str) -> ModelCallDraft:
        state = view.state
        before = [
            f"Your {label}:\n{labelled(state, label)[-1].text.strip()}"
            for label in _STAGES[: _STAGES.index(stage)]
            if labelled(state, label)
        ]
        failed = [e for e in state.closed if e.label == stage and e.outcome == "failed"]
        problem = f"The last one was of no use: {failed[-1].detail}" if failed else ""
        hidden = f"Never say: {', '.join(self.hides)}." if self.hides else ""
        text = "\n\n".join(filter(None, [state.goal, *before, _ASKS[stage], hidden, problem]))
        most = state.spec.max_tokens if stage in (_SPEECH, _REFINED) else self.think_tokens
        draft = think(stage, state.spec.instructions, text, max_tokens=most)
        return replace(draft, turns=(*conversation(state), *draft.turns))

    def _say(self, text: str) -> Decided:
        """The speech without the sentences that give something away."""
        sentences = re.split(r"(?<=[.!?])\s+|\n+", text.strip())
        kept = " ".join(sentence for sentence in sentences if not self._named(sentence))
        return Decided(purpose="answer", text=kept or "I have nothing to say.", label=_SAID)

    def _named(self, text: str) -> list[str]:
        """What of the hidden the text names, as whole words."""
        return [
            word for word in self.hides if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        ]
