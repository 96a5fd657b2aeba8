"""ChainOfThought: reasoning in words before the answer, one chain or the majority of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.allowance import prompt_tokens
from pentad.agent.planning.base import (
    MAX_SAMPLES,
    Answers,
    Decided,
    Draft,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Selection,
    Thought,
    Unusable,
    View,
)
from pentad.agent.planning.final_answer import final_answer, vote
from pentad.agent.planning.thoughts import chose, labelled, lost, think
from pentad.agent.planning.turns import conversation
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.ranges import in_range
from pentad.types import Decision, Message

_CHAIN, _ANSWER = "chain", "answer"
_TOLD = "Think step by step, briefly. End with a line that begins with `Answer:` and has the answer alone."
_DIRECT = "Give the answer alone, without any explanation."
SHOTS = (
    (
        "A shelf has 4 rows of 6 books. 5 books are lent out. How many are there now?",
        "4 rows of 6 books are 4 * 6 = 24 books. 5 are lent out, so 24 - 5 = 19 are there.\nAnswer: 19",
    ),
    (
        "Ada walks 3 km to school and back, five days a week. How far is that in a week?",
        "There and back is 3 + 3 = 6 km a day. Five days make 6 * 5 = 30 km.\nAnswer: 30 km",
    ),
    (
        "Tea costs 2 dollars and cake 3. Ben pays 2 teas and 1 cake with 10 dollars. What is his change?",
        "2 teas cost 2 * 2 = 4 dollars, with a cake 4 + 3 = 7. The change is 10 - 7 = 3.\nAnswer: 3 dollars",
    ),
)
"""Worked chains that come with the planner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOfThought:
    """Has the model reason in words, and gives what stands at the end of its chain.

    `think_tokens` bounds the chain, which makes its length a knob: 0 asks for the answer at once. A
    chain that came to no answer within it is closed by a short question. With `samples` several chains
    are drawn and the answer of most is taken; as many as the budget pays for. Tools are not used.

    Source: Wei et al. 2022, "Chain-of-Thought Prompting"; Kojima et al. 2022 (without examples, and the
    closing question); Wang et al. 2022, "Self-Consistency". Ours bounds the chain.
    """

    samples: int = 1
    """Chains drawn; the answer that most come to is taken."""
    temperature: float = 0.7
    """0 to 2; of the chains where there are several. A single one has the agent's."""
    think_tokens: int = 256
    """Of one chain, at most; 0 asks for the answer at once."""
    answer_tokens: int = 24
    """Of an answer without a chain and of the closing question, at most."""
    shots: int = 0
    """Worked chains of our own that are shown before the goal, at most 3."""
    examples: tuple[tuple[str, str], ...] = ()
    """Worked chains of yours, as (question, chain); each chain ends with a line `Answer: ...`."""
    show_chain: bool = False
    """Whether the answer has its chain before it."""
    max_repairs: int = 1
    """Times that an empty answer is asked for again."""

    name = "cot"

    def __post_init__(self) -> None:
        in_range("samples", self.samples, least=1, most=MAX_SAMPLES)
        in_range("temperature", self.temperature, least=0, most=2)
        in_range("shots", self.shots, least=0, most=len(SHOTS))
        for name, least in (("think_tokens", 0), ("answer_tokens", 1), ("max_repairs", 0)):
            in_range(name, getattr(self, name), least=least)

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:  # noqa: ARG002
        """All tools: it only reasons."""
        return {tool.name: f"planner {self.name} only reasons" for tool in tools}

    def exhausted(self, state: RunState) -> bool:
        """Whether the model had nothing to say too often."""
        return max(lost(state, _CHAIN), lost(state, _ANSWER)) > self.max_repairs

    def draft(self, view: View) -> Draft:
        """The chain, then its answer, which the model is asked for only where the chain has none."""
        state = view.state
        chains = labelled(state, _CHAIN)
        if chains:
            found = final_answer(chains[-1].text)
            if found is not None:
                text = chains[-1].text.strip() if self.show_chain else found
                return Decided(purpose="answer", text=text, label=_ANSWER)
            return self._draft_answer(view, chains[-1])
        chain = self._draft_chain(state)
        count = self._affordable(chain, state)
        if state.step >= state.spec.max_steps or not count:
            return self._draft_answer(view, None)
        return replace(chain, samples=count, temperature=self.temperature if count > 1 else None)

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:  # noqa: ARG002
        """The first chain that ends with the answer of most."""
        index, shares = vote([final_answer(each.text) for each in candidates])
        decision = Decision(
            layer="agent",
            policy=self.name,
            subject="sample",
            chosen=str(index),
            candidates=tuple((str(place), share) for place, share in enumerate(shares)),
        )
        return Selection(index=index, decision=decision)

    def read(self, view: View, answer: Exchange) -> Reading:
        """A chain is a thought; the answer is the run's."""
        text = answer.text.strip()
        if answer.calls or not text or progress.call_shaped(text):
            return Unusable(problem="the answer is empty" if not text else "tools are not used here")
        if answer.label != _CHAIN:
            return Answers(text=text)
        found = final_answer(text)
        bound = f"{self.think_tokens} tokens of thought, {max(1, len(answer.candidates))} chains"
        left = view.state.budget_left.tokens
        spent = bound if left is None else f"{bound}; {left} tokens are left"
        return Thought(decisions=(chose(self.name, _CHAIN, found or "no answer yet", constraint=spent),))

    def _affordable(self, chain: ModelCallDraft, state: RunState) -> int:
        """Chains that the budget pays for beside the closing question, at most `samples`."""
        left = state.budget_left.tokens
        if self.think_tokens == 0:
            return 0
        if left is None:
            return self.samples
        # The closing question has the prompt and one chain before it.
        prompt = prompt_tokens(chain)
        spare = left - 2 * prompt - self.think_tokens - self.answer_tokens
        return max(0, min(self.samples, spare // self.think_tokens))

    def _draft_chain(self, state: RunState) -> ModelCallDraft:
        draft = think(
            _CHAIN,
            f"{state.spec.instructions}\n\n{_TOLD}".strip(),
            state.goal,
            max_tokens=max(1, self.think_tokens),
        )
        return replace(draft, turns=(*conversation(state), *self._shown(chain=True), *draft.turns))

    def _draft_answer(self, view: View, chain: Exchange | None) -> ModelCallDraft:
        state = view.state
        goal = MessageGroup(messages=(Message(role="user", content=state.goal),), pinned=True, noted=True)
        turns = (*conversation(state), *self._shown(chain=chain is not None), goal)
        if chain is not None:
            said = Message(role="assistant", content=chain.text.strip())
            asked = Message(role="user", content="So what is the answer? Give it alone.")
            turns = (*turns, MessageGroup(messages=(said, asked), pinned=True))
        return ModelCallDraft(
            purpose="answer",
            system=f"{state.spec.instructions}\n\n{_DIRECT}".strip(),
            turns=turns,
            max_tokens=self.answer_tokens,
            next_hint="end",
            label=_ANSWER,
        )

    def _shown(self, *, chain: bool) -> tuple[MessageGroup, ...]:
        """Worked examples, with their chains or with their answers alone."""
        messages = []
        for question, worked in (*SHOTS[: self.shots], *self.examples):
            text = worked if chain else final_answer(worked) or worked
            messages += [Message(role="user", content=question), Message(role="assistant", content=text)]
        return (MessageGroup(messages=tuple(messages), pinned=True),) if messages else ()
