"""The choices of one request while they are generated token by token, and the usage they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pentad.execution.backend import ChoiceDone, Delta, PromptDelta
from pentad.execution.request import Guide, SequenceStats, StepOutput, TokenRequest
from pentad.model.backends.codec import ChatCodec
from pentad.model.backends.parsing import OutputParser
from pentad.model.backends.prepared import Prepared
from pentad.model.backends.text import TextStream
from pentad.model.guides import GrammarGuide
from pentad.types import FinishReason, Layer, Request, Span, Usage


@dataclass(slots=True)
class ChoiceState:
    """What a backend keeps of one choice: where its text stands and how it is read."""

    choice: int
    text: TextStream
    parser: OutputParser
    watched: bool
    """Whether whoever draws the tokens also makes the text, because of stop strings."""
    prompt: Sequence[int] = ()
    silent: bool = False
    """Whether only the prompt was asked for; the one token drawn behind it is dropped."""
    reasoning_tokens: int = 0
    stats: SequenceStats | None = None

    def take(self, output: StepOutput) -> list[Delta]:
        """The deltas of one output; the last one of a sequence ends its choice."""
        scored: list[Delta] = []
        if output.prompt:
            scored.append(
                PromptDelta(tokens=self.text.prompt_logprobs(self.prompt, output.prompt), choice=self.choice)
            )
        if self.silent:
            return scored + self._end_silent(output)
        return scored + self._take(output)

    def _end_silent(self, output: StepOutput) -> list[Delta]:
        if output.finish is None:
            return []
        self.stats = None if output.stats is None else replace(output.stats, completion_tokens=0)
        return [ChoiceDone(reason="length", choice=self.choice)]

    def _take(self, output: StepOutput) -> list[Delta]:
        if not self.watched:
            for drawn in output.drawn:
                self.text.accept(drawn)
        deltas: list[Delta] = []
        if self.parser.may_think:  # one by one, to count the tokens of the reasoning
            for _ in output.drawn:
                self.reasoning_tokens += self.parser.thinking
                deltas += self.parser.feed(self.text.take(1))
        elif output.drawn:
            deltas += self.parser.feed(self.text.take(len(output.drawn)))
        if output.finish is not None:
            self.stats = output.stats
            deltas += self.parser.feed(self.text.finish())
            deltas += self.parser.finish()
            reason = self._reason(output.finish)
            deltas.append(ChoiceDone(reason=reason, choice=self.choice, stop=self.text.stop))
        return deltas

    def _reason(self, finish: FinishReason) -> FinishReason:
        return "tool_calls" if finish == "stop" and self.parser.made_calls else finish


def open_choices(
    codec: ChatCodec, request: Request, prepared: Prepared, *, elsewhere: bool = False
) -> tuple[list[TokenRequest], dict[str, ChoiceState]]:
    """One token request per choice, and by its id the state to read its output with.

    With the engine elsewhere, constraint and watcher travel as a guide, and the text is made here as well.
    """
    stops = bool(request.sampling.stop)
    watched = stops and not elsewhere
    watcher_guide = codec.watcher_guide(request) if stops and elsewhere else None
    sampling = codec.sampling(request)
    asked: list[TokenRequest] = []
    states: dict[str, ChoiceState] = {}
    for choice in range(request.sampling.n):
        text = codec.text_stream(request)
        constraint = prepared.constraints[choice]
        guided = constraint.data() if isinstance(constraint, GrammarGuide) else None
        tokens = TokenRequest(
            id=f"{request.id}/{choice}",
            prompt=prepared.prompt,
            source=prepared.source,
            embedded=prepared.embedded,
            # The prompt is scored once, by the choice that computes it.
            sampling=sampling if choice == 0 else replace(sampling, prompt_logprobs=None),
            max_tokens=max(1, prepared.max_tokens),
            end_tokens=codec.end_tokens,
            choice=choice,
            seed=prepared.seed,
            tenant=request.tenant,
            # What one adapter has computed is no other's prefix.
            cache_salt=f"{request.cache_salt}\0{request.adapter}" if request.adapter else request.cache_salt,
            adapter=request.adapter,
            priority=request.priority,
            context=request.context,
            reference=prepared.reference,
            constraint=None if elsewhere else constraint,
            watcher=text if watched else None,
            guide=Guide(guided, watcher_guide) if guided or watcher_guide else None,
        )
        asked.append(tokens)
        parser = codec.parser(request, prepared, choice)
        states[tokens.id] = ChoiceState(
            choice, text, parser, watched, prompt=prepared.prompt, silent=prepared.max_tokens == 0
        )
    return asked, states


def usage_of(prepared: Prepared, choices: Sequence[ChoiceState], sent_s: float, end_s: float) -> Usage:
    """The usage of a finished request.

    The prompt counts once, whatever the number of choices; cached is what the first of them found.
    """
    stats = [state.stats for state in choices if state.stats is not None]
    decisions = dict.fromkeys(decision for entry in stats for decision in entry.decisions)
    return Usage(
        prompt_tokens=len(prepared.source) + len(prepared.prompt),
        cached_tokens=min((entry.cached_tokens for entry in stats), default=0),
        completion_tokens=sum(entry.completion_tokens for entry in stats),
        reasoning_tokens=sum(state.reasoning_tokens for state in choices),
        spans=(*prepared.spans, *token_spans(stats, sent_s, end_s)),
        decisions=(*prepared.decisions, *decisions),
    )


def token_spans(stats: Sequence[SequenceStats], sent_s: float, end_s: float) -> tuple[Span, ...]:
    """Where the time went from handing the request over until its last delta.

    The spans follow one another without gaps: waiting until the first choice was admitted, prefill
    until its first token, decoding until the last choice ended, and the rest making text of it.
    """
    scheduled_s = min((s.scheduled_s for s in stats if s.scheduled_s is not None), default=None)
    first_s = min((s.first_token_s for s in stats if s.first_token_s is not None), default=None)
    finished_s = max((s.finished_s for s in stats if s.finished_s is not None), default=None)
    marks: list[tuple[Layer, str, float | None]] = [
        ("resource", "queue", scheduled_s),
        ("execution", "prefill", first_s),
        ("execution", "decode", finished_s),
        ("model", "detokenize", end_s),
    ]
    spans: list[Span] = []
    at_s = sent_s
    for layer, name, until_s in marks:
        if until_s is not None:
            spans.append(Span(layer=layer, name=name, start_s=at_s, end_s=max(at_s, until_s)))
            at_s = max(at_s, until_s)
    return tuple(spans)
