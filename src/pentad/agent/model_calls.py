"""Model calls of a run: fitted, reserved, streamed, settled; tried again when a backend breaks."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from pentad.agent.budget import Amount, consumed
from pentad.agent.context_builders.base import ContextBuilder, ContextInput
from pentad.agent.context_builders.elastic import in_contexts
from pentad.agent.events import StepOutcome
from pentad.agent.expectations import Outlook, outlook
from pentad.agent.inheritance import continued
from pentad.agent.model_events import Candidate, ModelAnswered, ModelAsked, Purpose, TextStreamed
from pentad.agent.model_failures import failed, pause_s
from pentad.agent.off_loop import off_loop
from pentad.agent.parallel import ALONE, Branch
from pentad.agent.planning.base import Alternatives, MessageGroup, ModelCallDraft
from pentad.agent.prompt_store import PromptText
from pentad.agent.run import Run
from pentad.agent.run_places import model_call
from pentad.agent.spec import AgentSpec
from pentad.agent.surprise import surprises
from pentad.choice import build
from pentad.content import Media
from pentad.errors import BackendFailed, BudgetExceeded, Incompatible, NotFound, Overloaded, PentadError
from pentad.execution.backend import Completion, Delta, TextDelta, TokenLogprob, fold
from pentad.model.backends.openai_usage import media_tokens
from pentad.tracing.context import CURRENT
from pentad.types import Decision, Message, OutputFormat, Request, RunContext, Sampling, Usage

MAX_TRIES = 3
DEFAULT_CONTEXT = 8192
"""Assumed of a model that does not tell its context length."""


class ModelCalls:
    """Asks the model on behalf of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._context: ContextBuilder = build("context", run.state.spec.context)
        self._shown: tuple[Media, ...] | None = None
        self._latest: str | None = None
        """Id of the run's latest model call in this process, but for questions on the side."""
        self._asked: dict[int, Request] = {}
        """By branch, the calls of the step under way."""

    async def ask(self, asked: ModelCallDraft | Alternatives, branch: Branch = ALONE) -> ModelAnswered:
        """The journaled answer to a draft, or answers where it asks for several samples.

        Args:
            asked: one draft, or several of which the router takes one.
            branch: which of the parallel calls of the step it is.

        Raises:
            ContextLengthExceeded: it does not fit and nothing may be left out.
            BudgetExceeded: it cannot be afforded.
            BackendFailed, Overloaded: also after `MAX_TRIES` tries.
        """
        run = self._run
        around, state = run.around, run.state
        ways = asked.ways if isinstance(asked, Alternatives) else (("", asked),)
        await around.tool_times.learn(around.journal, state.run_id, state.tenant)
        with run.span("agent", "context"):
            drafts = in_contexts(
                self._context,
                {
                    way: continued(_formed(one, state.spec), state.inherited, state.spec.name)
                    for way, one in ways
                },
                state.spec.memory.window,
            )
            media = await self._media()
            asking = {
                way: self._request(
                    one, one.max_tokens, outlook(state, one, around.tool_times, self._latest), media
                )
                for way, one in drafts.items()
            }
            await around.models.prepare(*asking.values())
            way, request = around.models.chosen(asking)
            draft = drafts[way]
            limit = self._prompt_limit(request)
            given = ContextInput(
                draft=draft,
                state=run.state,
                window=run.state.spec.memory.window,
                limit_tokens=limit,
                count=lambda messages: self._count(replace(request, messages=messages)),
                summarise=self._summarise,
                relevance=around.relevance,
                media=media,
            )
            built = await self._context.build(given)
        if built.compacted is not None:
            await run.append(built.compacted)
        decisions = built.decisions(self._context.name, given.limit, run.around.clock())
        request = run.prompted = replace(request, messages=built.messages)
        answer = await self._try_hard(
            request,
            built.tokens,
            draft.purpose,
            decisions,
            replace(branch, goal=draft.goal, label=draft.label),
        )
        self._latest = f"{request.id}.{answer.attempt}"
        self._asked[branch.number] = request
        return answer

    def judge(self, outcomes: Mapping[int, StepOutcome]) -> None:
        """Tells the models' service how the step's calls went, by branch, where that tells of them."""
        for number, outcome in outcomes.items():
            request = self._asked.pop(number, None)
            if request is not None and outcome in ("called_tools", "failed"):
                self._run.around.models.judge(request, right=outcome == "called_tools")

    async def _media(self) -> tuple[Media, ...]:
        """What the goal shows, with data: of this process, or as they were kept.

        Raises:
            NotFound: they are kept no longer, or never were.
        """
        if self._shown is None:
            run = self._run
            journal, run_id = run.around.journal, run.state.run_id
            shown = []
            for part in run.state.media:
                data: bytes | None = part.data
                if not data:
                    asked = functools.partial(asyncio.to_thread, journal.part, run_id, part.sha256)
                    data = await run.insist(asked)
                if not data:
                    raise NotFound(
                        f"the {part.told} of the goal is not kept", hint="start the run again with it"
                    )
                shown.append(replace(part, data=data))
            self._shown = tuple(shown)
        return self._shown

    async def tool_ask(self, system: str, text: str, max_tokens: int) -> str:
        """A question that a tool puts to the run's model; the budget is the run's."""
        return (await self._side_question("tool", system, text, max_tokens)).text.strip()

    async def other_ask(self, model: str, system: str, text: str, max_tokens: int) -> str:
        """As `tool_ask`, of the served model of that name. Raises ModelNotFound."""
        return (await self._side_question("tool", system, text, max_tokens, model=model)).text.strip()

    async def surprise(self, text: str, model: str) -> list[tuple[int, int, float]]:
        """How surprising each token of a text is to a served model, journaled and within the run's budget.

        As `pentad.model.reduction.base.Surprise` wants it; long texts are scored in parts.
        """
        return await surprises(text, functools.partial(self._scored, model or self._run.state.spec.model))

    async def _scored(self, model: str, part: str) -> tuple[TokenLogprob, ...]:
        sampling = Sampling(max_tokens=0, prompt_logprobs=0)
        state = self._run.state
        request = Request(
            id=f"{state.run_id}.{state.step}",
            model=model,
            text=part,
            sampling=sampling,
            tenant=state.tenant,
            priority=state.priority,
            context=self._run.context(Outlook(parent=f"{state.run_id}.{state.step}")),
        )
        await self._run.around.models.prepare(request)
        request = self._run.around.models.routed(request)
        seen: list[Completion] = []
        tokens = self._run.around.models.count_tokens(request)
        await self._try_hard(request, tokens, "reduce", (), seen=seen.append)
        return seen[-1].choices[0].prompt

    async def memory_ask(self, system: str, text: str, max_tokens: int) -> str:
        """A question that a memory puts to the run's model; the budget is the run's."""
        return (await self._side_question("remember", system, text, max_tokens)).text.strip()

    async def memory_sample(
        self, system: str, text: str, max_tokens: int, *, samples: int, temperature: float
    ) -> tuple[str, ...]:
        """As `memory_ask`, for several answers drawn at a temperature."""
        made = await self._side_question("remember", system, text, max_tokens, samples, temperature)
        return tuple(each.text for each in made.candidates) or (made.text,)

    async def _summarise(self, text: str) -> str:
        system = (
            "Sum up the conversation in at most three short sentences. Keep names, numbers and decisions."
        )
        return (await self._side_question("summarise", system, text, 96)).text.strip()

    async def _side_question(
        self,
        purpose: Purpose,
        system: str,
        text: str,
        max_tokens: int,
        samples: int = 1,
        temperature: float | None = None,
        model: str | None = None,
    ) -> ModelAnswered:
        turn = MessageGroup(messages=(Message(role="user", content=text),), pinned=True)
        draft = ModelCallDraft(
            purpose=purpose,
            system=system,
            turns=(turn,),
            max_tokens=max_tokens,
            next_hint="model",
            samples=samples,
            temperature=temperature,
        )
        # Nothing will begin with its text, and it is not what the latest call of the run waits for.
        state = self._run.state
        outlook = Outlook(parent=f"{state.run_id}.{state.step}")
        request = self._request(draft, max_tokens, outlook, model=model)
        await self._run.around.models.prepare(request)
        request = self._run.around.models.routed(request)
        messages = (Message(role="system", content=system), *turn.messages)
        request = replace(request, messages=messages)
        return await self._try_hard(request, self._count(request), purpose, ())

    def _request(
        self,
        draft: ModelCallDraft,
        max_tokens: int,
        expected: Outlook,
        media: tuple[Media, ...] = (),
        model: str | None = None,
    ) -> Request:
        state = self._run.state
        spec = state.spec
        return Request(
            id=f"{state.run_id}.{state.step}",
            model=spec.model if model is None else model,
            # Their media stand elsewhere in the end; a router is to know of them.
            messages=tuple(
                replace(message, media=media) if turn.noted else message
                for turn in draft.turns
                for message in turn.messages
            ),
            tools=draft.tools,
            shown_tools=draft.shown_tools,
            tool_choice=draft.tool_choice,
            format=draft.format,
            sampling=Sampling(
                temperature=spec.temperature if draft.temperature is None else draft.temperature,
                seed=spec.seed,
                n=draft.samples,
                max_tokens=max_tokens,
                stop=draft.stop,
            ),
            tenant=state.tenant,
            priority=state.priority,
            context=_reduced(self._run.context(expected), draft.context_tokens),
        )

    def _prompt_limit(self, request: Request) -> int:
        """Prompt tokens that the model's context leaves beside the answer."""
        return max(1, self._context_length(request.model) - (request.sampling.max_tokens or 0))

    def _context_length(self, model: str) -> int:
        lengths = [
            card.context_length
            for card in self._run.around.models.models()
            if card.kind == "generate" and (card.name == model or not model)
        ]
        # Without a name the service takes its first model.
        return lengths[0] if lengths and lengths[0] is not None else DEFAULT_CONTEXT

    def _count(self, request: Request) -> int:
        try:
            return self._run.around.models.count_tokens(request)
        except Incompatible:
            # A remote tokenizer: about three bytes a token is an overestimate in most languages.
            texts = [m.content + "".join(c.arguments for c in m.tool_calls) for m in request.messages or ()]
            texts += [f"{tool.description}{tool.parameters}" for tool in request.tools]
            words = sum(math.ceil(len(text.encode("utf-8", "replace")) / 3) + 8 for text in texts)
            return words + media_tokens(request)

    async def _try_hard(
        self,
        request: Request,
        prompt_tokens: int,
        purpose: Purpose,
        decisions: tuple[Decision, ...],
        branch: Branch = ALONE,
        seen: Callable[[Completion], None] | None = None,
    ) -> ModelAnswered:
        for number in range(1, MAX_TRIES + 1):
            attempt = self._run.next_attempt()
            request, asked = self._afford(request, prompt_tokens, purpose, attempt, branch)
            with self._run.span("agent", "prompt"):
                # Off the event loop: rendering a long conversation takes a while.
                render = functools.partial(self._run.around.models.prompt_text, request)
                prompt = PromptText.of(await off_loop(render, chars=_chars(request)))
                asked = replace(asked, prompt_sha256=prompt.sha256)
            await self._run.reserve(
                Amount(tokens=asked.reserved_tokens, cost=asked.reserved_cost), asked, prompt=prompt
            )
            branch.reserved()
            started: list[Delta] = []
            try:
                completion = await self._stream(request, asked, started)
                consumed(completion.usage)
            except PentadError as error:
                again = number < MAX_TRIES and isinstance(error, BackendFailed | Overloaded)
                await self._run.append(failed(asked, error, again, bool(started)))
                if not again:
                    raise
                await asyncio.sleep(pause_s(error, number))
                continue
            await branch.come()
            if seen is not None:
                seen(completion)
            return await self._answered(asked, completion, decisions, branch)
        raise AssertionError("the last try either returns or raises")

    def _afford(
        self, request: Request, prompt_tokens: int, purpose: Purpose, attempt: int, branch: Branch
    ) -> tuple[Request, ModelAsked]:
        """The request with answers no longer than the budget allows, and its reservation.

        Parallel calls that have not been reserved yet have equal parts of what is left.
        """
        max_tokens, samples = request.sampling.max_tokens or 0, request.sampling.n
        left = self._run.state.budget_left.tokens
        left = None if left is None else left // branch.unreserved
        if left is not None:
            if left <= prompt_tokens:
                raise BudgetExceeded(
                    f"the next model call has {prompt_tokens} prompt tokens, {left} of "
                    f"{self._run.state.ledger.budget.tokens} are left",
                    hint="raise budget.tokens",
                    param="budget.tokens",
                )
            max_tokens = min(max_tokens, max(1, (left - prompt_tokens) // samples))
        price = self._run.around.models.price(request.model)
        money = self._run.state.budget_left.cost
        if money is not None:
            affordable = price.affordable(money / branch.unreserved, prompt_tokens)
            affordable = None if affordable is None else affordable // samples
            if affordable is not None and affordable < 1:
                raise BudgetExceeded(
                    f"the next model call has {prompt_tokens} prompt tokens, {money:g} of "
                    f"{self._run.state.ledger.budget.cost:g} money are left",
                    hint="raise budget.cost",
                    param="budget.cost",
                )
            max_tokens = max_tokens if affordable is None else min(max_tokens, affordable)
        asked = ModelAsked(
            step=self._run.state.step,
            attempt=attempt,
            purpose=purpose,
            request_id=f"{self._run.state.run_id}.{self._run.state.step}.{attempt}",
            prompt_tokens=prompt_tokens,
            reserved_tokens=prompt_tokens + samples * max_tokens,
            reserved_cost=price.at_most(prompt_tokens, samples * max_tokens),
            branch=branch.number,
            samples=samples,
        )
        sampling = replace(request.sampling, max_tokens=max_tokens)
        return replace(request, id=asked.request_id, sampling=sampling), asked

    async def _stream(self, request: Request, asked: ModelAsked, deltas: list[Delta]) -> Completion:
        run = self._run
        if run.place is not None:
            CURRENT.set(run.place.at(model_call(run.state.run_id, asked.step, asked.attempt)))
        with run.span("model", "call"):
            async with aclosing(run.around.models.stream(request)) as stream:
                async for delta in stream:
                    deltas.append(delta)
                    if isinstance(delta, TextDelta) and delta.choice == 0:
                        run.stream(
                            TextStreamed(
                                step=asked.step,
                                attempt=asked.attempt,
                                purpose=asked.purpose,
                                text=delta.text,
                                kind=delta.kind,
                            )
                        )
        try:
            completion = fold(deltas)
        except ValueError as error:
            raise BackendFailed(f"the backend's stream is not whole: {error}") from None
        if completion.choices[0].reason == "cancelled":
            raise BackendFailed("the backend cancelled the request")
        return completion

    async def _answered(
        self, asked: ModelAsked, completion: Completion, decisions: tuple[Decision, ...], branch: Branch
    ) -> ModelAnswered:
        choice = completion.choices[0]
        candidates = tuple(
            Candidate(
                text=each.message.content,
                reasoning=each.reasoning,
                tool_calls=each.message.tool_calls,
                reason=each.reason,
            )
            for each in completion.choices
        )
        usage: Usage = replace(completion.usage, decisions=(*decisions, *completion.usage.decisions))
        answer = ModelAnswered(
            step=asked.step,
            attempt=asked.attempt,
            purpose=asked.purpose,
            usage=usage,
            branch=branch.number,
            branches=branch.of,
            goal=branch.goal,
            label=branch.label,
            candidates=candidates,
        )
        if asked.samples == 1:
            answer = replace(
                answer,
                text=choice.message.content,
                reasoning=choice.reasoning,
                tool_calls=choice.message.tool_calls,
                reason=choice.reason,
                candidates=(),
            )
        if asked.purpose in ("plan", "act", "answer") and branch.of == asked.samples == 1:
            await self._run.note(answer)  # what follows of it is journaled with it
        else:
            await self._run.append(answer)
        over = self._run.state.ledger.overdrawn
        if over.tokens or over.cost:
            raise BudgetExceeded(
                f"the backend used {over.tokens} tokens and {over.cost:g} money more than the budget had",
                hint="raise the budget",
                param="budget",
            )
        return answer


def _chars(request: Request) -> int:
    """Of the prompt, about: tools are few and short."""
    return len(request.text or "") + sum(len(message.content) for message in request.messages or ())


def _formed(draft: ModelCallDraft, spec: AgentSpec) -> ModelCallDraft:
    """The draft, with the form of the agent's answer where it may come to that."""
    free = draft.format.kind == "text" and draft.tool_choice.mode in ("auto", "none")
    if spec.answer_schema is None or not (draft.purpose == "answer" or (draft.purpose == "act" and free)):
        return draft
    return replace(draft, format=OutputFormat(kind="json_schema", value=spec.answer_schema))


def _reduced(context: RunContext, context_tokens: int | None) -> RunContext:
    """The same, told how long the prompt gets where its context is reduced."""
    if context_tokens is None:
        return context
    return replace(context, hints=replace(context.hints, prompt_tokens=context_tokens))
