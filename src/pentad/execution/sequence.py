"""Sequence: everything the engine knows about one generation, and what a scheduler may see of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.execution.batch import GREEDY_BELOW, Drawn, SampleRow
from pentad.execution.failures import row_failure
from pentad.execution.hints import TurnHints, turn_hints
from pentad.execution.kv.cache import KVCache
from pentad.execution.kv.pool import Key
from pentad.execution.request import Constraint, SequenceStats, TokenRequest
from pentad.execution.scoring import PromptScores
from pentad.types import Decision, FinishReason, RunContext

if TYPE_CHECKING:
    from pentad.execution.speculation.stage import DraftedTree

_MAX_DECISIONS = 32
"""Decisions kept per sequence; a bound that holds it back for long is recorded once."""


class Sequence:
    """One generation in progress. Implements SequenceView; only the engine changes it.

        tokens        [ prompt ............ | generated .... ]
        num_computed  [ in the KV cache .......... ]            the rest is to be computed
        blocks        [ 0 ][ 1 ][ 2 ][ 3 ][ 4 ][ 5 ]            exactly what num_computed needs

    What an encoder reads stands in front of the prompt, filled up to whole blocks: these hold what
    cross-attention keeps of it, the others what the decoder keeps of the text.

    The next token is drawn in the step that computes the last of `tokens`. A preempted sequence
    loses its blocks and nothing else: constraint, watcher and counts stand as they are.

    Args:
        request: what was asked.
        order: rises with each request that the engine took.
        arrived_s: instant of arrival on the engine's clock.
        cache: answers how much of the tokens the prefix cache holds.
    """

    __slots__ = (
        "_cache",
        "_decisions",
        "_draft",
        "_ends",
        "_output_counts",
        "_remembered",
        "_seen",
        "_steady_row",
        "_temperature",
        "adapter",
        "arrived_s",
        "blocks",
        "chunk_ended_s",
        "chunk_s",
        "context",
        "embedded",
        "first_token_s",
        "id",
        "keys",
        "leader",
        "num_computed",
        "num_draft",
        "num_preemptions",
        "num_registered",
        "order",
        "priority",
        "prompt_cached_tokens",
        "prompt_tokens",
        "request",
        "root",
        "row",
        "running",
        "scheduled_s",
        "scores",
        "source_slots",
        "supplied_tokens",
        "tenant",
        "tokens",
        "turn_hints",
    )

    def __init__(self, request: TokenRequest, order: int, arrived_s: float, cache: KVCache) -> None:
        self.request = request
        self.id: str = request.id
        self.tenant: str = request.tenant
        self.context: RunContext = request.context
        self.turn_hints: TurnHints | None = turn_hints(request.context)
        self.priority: int = request.priority
        self.arrived_s: float = arrived_s
        self.order = order
        source = cache.whole_blocks(request.source)
        self.source_slots = len(source)
        """KV slots of what the encoder reads, in front of all others."""
        self.tokens: list[int] = [*source, *request.prompt, *request.generated]
        self.prompt_tokens = len(source) + len(request.prompt)
        self.adapter = request.adapter
        self.embedded = request.embedded
        self.num_computed: int = 0
        self.blocks: list[int] = []
        self.row = -1
        """Row of the block tables while running."""
        self.running = False
        self.num_draft = 0
        self._draft: DraftedTree | None = None
        self.root: Key = cache.root(request)
        self.keys: list[Key] = []
        """Names of the full blocks, as far as they were needed."""
        self.leader: Sequence | None = None
        """The choice of the same prompt that computed it, while this one has not started."""
        self.num_registered = 0
        """Leading blocks that the prefix cache knows."""
        self.supplied_tokens = 0
        """Tokens that the cache supplied at the latest admission."""
        self.prompt_cached_tokens = 0
        """Tokens that the cache supplied at the first admission."""
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.chunk_s = self.chunk_ended_s = 0.0
        self.num_preemptions = 0
        asked = request.sampling.prompt_logprobs
        self.scores = None if asked is None else PromptScores(request.prompt, asked)
        """Set until they are handed out with the first token."""
        self._cache = cache
        self._remembered = (-1, 0)
        self._decisions: list[Decision] = []
        sampling = request.sampling
        natural = frozenset() if sampling.ignore_eos else request.end_tokens
        self._ends = natural | frozenset(sampling.stop_token_ids)
        counts = sampling.presence_penalty or sampling.frequency_penalty
        self._output_counts: Counter[int] | None = Counter(request.generated) if counts else None
        self._seen: set[int] | None = self._texts() if sampling.repetition_penalty != 1.0 else None
        self._steady_row: SampleRow | None = None
        self._temperature = 0.0 if sampling.temperature < GREEDY_BELOW else sampling.temperature

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def max_tokens(self) -> int:
        return self.request.max_tokens

    @property
    def fresh_tokens(self) -> int:
        if self.scheduled_s is None:
            return self.prompt_tokens - min(self.num_cached, self.prompt_tokens)
        return self.prompt_tokens - min(self.prompt_cached_tokens, self.prompt_tokens)

    @property
    def plain(self) -> bool:
        """Whether its tokens change nothing but its text, until there are `max_tokens` of them."""
        request = self.request
        watched = self._ends or request.constraint is not None or request.watcher is not None
        counted = self._output_counts is not None or self._seen is not None
        return self.first_token_s is not None and not (
            watched or counted or self.num_draft or self.adapter or self.leader
        )

    @property
    def draft(self) -> DraftedTree | None:
        """Tokens drafted behind the last one, to be verified in its next step."""
        return self._draft

    @draft.setter
    def draft(self, draft: DraftedTree | None) -> None:
        self._draft = draft
        self.num_draft = 0 if draft is None else len(draft.tree)

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    @property
    def num_slots(self) -> int:
        return self._cache.slots(self)

    @property
    def num_private_blocks(self) -> int:
        return self._cache.private_blocks(self)

    @property
    def num_cached(self) -> int:
        if self.running:
            return self.supplied_tokens
        version = self._cache.version
        if self.leader is not None or self._remembered[0] != version:
            self._remembered = (version, self._cache.would_supply(self))
        return self._remembered[1]

    def admit(self, now_s: float) -> bool:
        """Notes that the sequence starts to run, with what the cache supplied; whether for the first time."""
        if self.scheduled_s is not None:
            return False
        self.scheduled_s = now_s
        self.prompt_cached_tokens = self.supplied_tokens
        return True

    def lose_blocks(self) -> None:
        """Back to the state before the first step, but for what was generated."""
        self.blocks = []
        self.row = -1
        self.running = False
        self.draft = None
        self.num_computed = self.num_registered = 0
        self._remembered = (-1, 0)

    def _texts(self) -> set[int]:
        """The tokens so far, without placeholders and what the encoder reads."""
        texts = list(self.tokens)
        for span in reversed(self.embedded):
            del texts[span.start : span.end]
        del texts[: self.source_slots]
        return set(texts)

    def sample_row(self) -> SampleRow:
        """How to draw the next token.

        Raises:
            InvalidRequest: the constraint allows no token.
        """
        if self._steady_row is not None:
            return self._steady_row
        row = self.row_behind((), self.request.constraint)
        early = self.num_generated < self.request.sampling.min_tokens
        if row.temperature <= 0 and row.mask is None and not early:
            self._steady_row = row  # nothing in it changes any more, but the counts it refers to
        return row

    def row_behind(self, path: tuple[int, ...], constraint: Constraint | None) -> SampleRow:
        """How to draw behind further tokens, with the constraint as they leave it.

        Raises:
            InvalidRequest: the constraint allows no token.
        """
        request, sampling = self.request, self.request.sampling
        generated = self.num_generated + len(path)
        banned = tuple(sorted(self._ends)) if generated < sampling.min_tokens else ()
        mask = None
        if constraint is not None:
            mask = constraint.mask()
            if not mask.any():
                raise InvalidRequest(
                    f"the output format of request {self.id!r} allows no token after {generated}",
                    hint="simplify the schema, pattern or grammar",
                    param="response_format",
                )
            if banned and not _leaves_any(mask, banned):
                banned = ()  # the format is complete: it decides, not min_tokens
        counts, seen = self._output_counts, self._seen
        if path:
            counts = None if counts is None else counts + Counter(path)
            seen = None if seen is None else seen | set(path)
        return SampleRow(
            temperature=self._temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            output_counts={} if counts is None else counts,
            seen=frozenset() if seen is None else seen,
            logit_bias=sampling.logit_bias,
            banned=banned,
            mask=mask,
            seed=request.seed,
            choice=request.choice,
            position=len(self.tokens) + len(path),
            logprobs=sampling.logprobs,
        )

    def ends_with(self, token: int, ahead: int) -> bool:
        """Whether `token` as the `ahead`-th further one would end the sequence."""
        return token in self._ends or self.num_generated + ahead >= self.request.max_tokens

    def extend(
        self, drawn: tuple[Drawn, ...]
    ) -> tuple[tuple[Drawn, ...], FinishReason | None, Exception | None]:
        """Takes a step's tokens as far as the sequence goes.

        Returns those that it got, why it is complete if it is, and what constraint or watcher raised or
        why there is no token.
        """
        tokens, request = self.tokens, self.request
        constraint, watcher = request.constraint, request.watcher
        given = 0
        try:
            for one in drawn:
                token = one.token
                if token < 0:
                    assert one.fault is not None, "a row without a token has no fault"
                    return drawn[:given], None, row_failure(self.id, one.fault)
                tokens.append(token)
                if self._output_counts is not None:
                    self._output_counts[token] += 1
                if self._seen is not None:
                    self._seen.add(token)
                if constraint is not None:
                    constraint.accept(token)
                stops = watcher is not None and watcher.accept(one)
                stops = stops or token in self._ends or (constraint is not None and constraint.finished())
                given += 1
                if stops:
                    return drawn[:given], "stop", None
                if len(tokens) - self.prompt_tokens >= request.max_tokens:
                    return drawn[:given], "length", None
        except Exception as error:
            return drawn[:given], None, error
        return drawn, None, None

    def note(self, decision: Decision) -> None:
        """Keeps a scheduler's decision, unless it only repeats the one before."""
        if len(self._decisions) >= _MAX_DECISIONS:
            return
        if self._decisions and _essence(self._decisions[-1]) == _essence(decision):
            return
        self._decisions.append(decision)

    def stats(self, finished_s: float) -> SequenceStats:
        """The record of a sequence that ends now."""
        filling = self.source_slots - len(self.request.source)
        return SequenceStats(
            arrived_s=self.arrived_s,
            scheduled_s=self.scheduled_s,
            first_token_s=self.first_token_s,
            finished_s=finished_s,
            prompt_tokens=self.prompt_tokens - filling,
            cached_tokens=max(0, min(self.prompt_cached_tokens, self.prompt_tokens) - filling),
            completion_tokens=self.num_generated,
            preemptions=self.num_preemptions,
            decisions=tuple(self._decisions),
        )


def note_decisions(decisions: Iterable[Decision], sequences: Mapping[str, Sequence]) -> None:
    """Keeps each decision with the sequences whose ids it names."""
    for decision in decisions:
        named = {decision.subject, decision.chosen, *(name for name, _ in decision.candidates)}
        for id in named & sequences.keys():
            sequences[id].note(decision)


def _leaves_any(mask: npt.NDArray[np.uint32], banned: tuple[int, ...]) -> bool:
    rest = mask.copy()
    for token in banned:
        if 0 <= token < rest.size * 32:
            rest[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFF_FFFF)
    return bool(rest.any())


def _essence(decision: Decision) -> tuple[str, str, str, str | None]:
    return (decision.policy, decision.subject, decision.chosen, decision.constraint)
