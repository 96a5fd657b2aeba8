"""ChatCodec: everything between a Request and tokens, and between tokens and deltas, of one model.

Shared by the backends that generate by token: they differ only in who draws the tokens.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pentad.content import Media
from pentad.errors import InvalidRequest, PentadError
from pentad.execution.request import Constraint
from pentad.execution.sources import check_source_length
from pentad.model.backends.completion_limit import answer_room
from pentad.model.backends.decisions import resolved
from pentad.model.backends.parsing import OutputParser
from pentad.model.backends.prefill import ResumedCalls, advance, prefill_of
from pentad.model.backends.prepared import Grammar, Prepared, offered
from pentad.model.backends.reasoner import Reasoner
from pentad.model.backends.sizes import PATIENCE, refuse_by_size, refuse_if_cut
from pentad.model.backends.text import TextStream
from pentad.model.constraints import ConstraintCompiler
from pentad.model.guides import watcher_guide
from pentad.model.loading import ModelFiles
from pentad.model.matchers import GrammarHost
from pentad.model.media import MediaEncoder, Piece, Placed, embedded, marked, place, told
from pentad.model.reasoning import choose_reasoning
from pentad.model.source_form import left_out, source_message
from pentad.model.template import default_template
from pentad.model.template.adapting import adapt, open_chat
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.model.toolcalls import CallParser, ToolFormat, choose_format
from pentad.types import Clock, Request, Sampling, Span

FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "choice", "grammar"})
"""Output formats that a backend with this codec can enforce."""

_log = logging.getLogger(__name__)

MAX_CHOICES = 128
"""Choices of one request."""


def draw_seed() -> int:
    """A fresh seed for a request that gives none."""
    return secrets.randbits(63)


class ChatCodec:
    """Renders, tokenizes and constrains requests for one model; makes the parsers of its answers.

    Thread-safe: nothing changes after construction but caches.

    Args:
        files: the opened model; only its tokenizer and metadata are used.
        context_length: tokens that prompt and answer may have together.
        tool_format: registered name, or `auto` to follow the chat template.
        seeds: draws the seed of requests that give none.
        clock: of the spans; must be the engine's.
        grammars: where they are compiled; None compiles them here.
        encoder: of parts that are no text; None where the model takes none.
        reasoning_format: registered name, `auto` to follow the chat template, or `none`.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        context_length: int,
        tool_format: str = "auto",
        seeds: Callable[[], int],
        clock: Clock,
        grammars: GrammarHost | None = None,
        encoder: MediaEncoder | None = None,
        reasoning_format: str = "auto",
    ) -> None:
        self._encoder = encoder
        self.tokenizer: Tokenizer = files.tokenizer
        self.context_length = context_length
        # Looked for now: going through a vocabulary would hold up everybody when the first long text comes.
        self._token_chars = files.tokenizer.max_token_chars
        self._name = files.name
        self.source_form = files.source_form
        self._readable = context_length if files.source_form is None else files.spec.source_length
        """Tokens that a prompt may have at most: those of the context, or what an encoder reads."""
        self._seeds = seeds
        self._clock = clock
        special = files.tokenizer.special_tokens
        source = files.chat_template
        if source is None and files.source_form is None:
            source = default_template(special)
        self.format: ToolFormat
        self.format, self._format_decision = choose_format(tool_format, source, files.family)
        self.end_tokens = files.end_tokens
        self._compiler = ConstraintCompiler(files.tokenizer, self.end_tokens or {0}, host=grammars)
        self.facts = TokenizerFacts(
            vocab_size=files.tokenizer.vocab_size,
            bos_token=self._spelling(files.bos_token) or None,
            eos_token=self._spelling(files.eos_token) or None,
            chat_template=source,
        )
        self._chat = open_chat(
            source,
            special,
            bos=self._spelling(files.bos_token),
            eos=self._spelling(files.eos_token),
            presents_tools=self.format == choose_format("auto", source, files.family)[0],
        )
        self._mended = () if isinstance(self._chat, PentadError) else self._chat.mended
        for note in self._mended:
            _log.info("the chat template of %r was mended: %s", self._name, note)
        reasoning = choose_reasoning(reasoning_format, source)
        self._reasoner = Reasoner(format=reasoning, template=source or "", tokenizer=files.tokenizer)
        marks = (*self.format.texts(), *self._reasoner.texts)
        self._spelled = frozenset(id for text, id in special.items() if any(text in mark for mark in marks))

    def _spelling(self, id: int | None) -> str:
        return "" if id is None else self.tokenizer.token(id)

    # From the request to tokens

    def prompt(self, request: Request) -> tuple[int, ...]:
        """The prompt's tokens.

        Raises:
            InvalidRequest: the model has no chat template, or its template refuses the messages.
        """
        read = self._tokenized(request, self._rendered(request)[0])[0]
        return read if self.source_form is None else (*read, *self.source_form.start)

    def prompt_text(self, request: Request) -> str:
        """The prompt as text, control tokens spelled out. Raises as `prompt`."""
        if request.token_ids is not None:
            return self.detokenize(request.token_ids)
        return "".join(map(told, self._rendered(request)[0]))

    def grammar(self, request: Request) -> Grammar:
        """What answers of the request follow. Costly where the client wants it to be.

        Raises:
            InvalidRequest: a format that cannot be enforced, or tools that are not there.
        """
        started_s = self._clock()
        self._check(request)
        tools, format = offered(request), request.format
        notes: tuple[str, ...] = ()
        first: Constraint | None
        constrained = tools or format.kind != "text"
        lead = self._reasoner.lead(request, self._rendered(request)[1]) if constrained else None
        if tools:
            first, notes = self._compiler.for_calls(self.format, tools, request.tool_choice, format, lead)
        else:
            first = self._compiler.for_answer(format, lead)
        return Grammar(first, notes, started_s, led=lead is not None)

    def prepare(self, request: Request, grammar: Grammar | None = None) -> Prepared:
        """The request as tokens, its limits checked and its open ends resolved.

        Args:
            request: to prepare.
            grammar: of this request, if it was made before.

        Raises:
            InvalidRequest: see `prompt`; a token id out of range, or a format that cannot be enforced.
            ContextLengthExceeded: the prompt, or prompt and answer together, do not fit.
        """
        grammar = grammar or self.grammar(request)
        started_s = self._clock()
        pieces, thinking = self._rendered(request)
        rendered_s = self._clock()
        prompt, places = self._tokenized(request, pieces)
        tokenized_s = self._clock()
        source: tuple[int, ...] = ()
        if self.source_form is not None:
            param = "prompt" if request.messages is None else "messages"
            check_source_length(len(prompt), self._readable, self._name, param=param)
            source, prompt = prompt, self.source_form.start
        max_tokens, fitted = answer_room(
            request, len(prompt), context=self.context_length, model=self._name, at_s=tokenized_s
        )
        tools = offered(request)
        first = advance(grammar.first, self.tokenizer.encode(prefill_of(request), special=False))
        reasoner, wishes = self._reasoner, self._reasoner.wishes(request)
        reasons = reasoner.reasons(request, thinking, led=first is None or grammar.led)
        if reasons and wishes.budget_tokens is not None:
            first = reasoner.limited(first, wishes.budget_tokens, thinking, self._compiler)
        seed = request.sampling.seed
        drawn = self._seeds() if seed is None else seed
        spans = [
            Span(layer="model", name="render", start_s=started_s, end_s=rendered_s),
            Span(layer="model", name="tokenize", start_s=rendered_s, end_s=tokenized_s),
        ]
        if inputs := embedded(self._encoder, places):
            spans.append(Span(layer="model", name="encode", start_s=tokenized_s, end_s=self._clock()))
        if grammar.first is not None:
            spans.insert(0, Span(layer="model", name="constrain", start_s=grammar.started_s, end_s=started_s))
        return Prepared(
            prompt=prompt,
            source=source,
            embedded=inputs,
            max_tokens=max_tokens,
            seed=drawn,
            tools=tools,
            reasons=reasons,
            thinking=thinking,
            reference=self._reference(request),
            constraints=replace(grammar, first=first).for_choices(request.sampling.n),
            spans=tuple(spans),
            decisions=(left_out(request, at_s=tokenized_s) if self._reads_last_message else ())
            + resolved(
                request,
                fitted=fitted,
                seed=drawn,
                format=self._format_decision if tools else None,
                mended=self._mended if tools else (),
                unchecked=grammar.notes,
                effort=wishes.decision,
                at_s=tokenized_s,
            ),
        )

    def tokenize(self, text: str, *, prefix: bool = False) -> list[int]:
        """See TokenCodec. Raises ContextLengthExceeded for more than what could ever be a prompt."""
        self.refuse_by_size(Request(id="tokenize", model=self._name, text=text))
        ids = self.tokenizer.encode(text, special=True)
        return self._prefixed(ids) if prefix else ids

    def detokenize(self, ids: Sequence[int]) -> str:
        """See TokenCodec. Raises InvalidRequest for an unknown id."""
        self._check_ids("tokens", ids)
        return self.tokenizer.decode(ids, special=True)

    def sampling(self, request: Request) -> Sampling:
        """How answers are drawn, without the tokens that the model's makers exclude."""
        sampling = request.sampling
        return sampling if self.source_form is None else self.source_form.sampling(sampling)

    # From tokens to deltas

    def text_stream(self, request: Request) -> TextStream:
        """A fresh TextStream for one choice of the request."""
        sampling = request.sampling
        return TextStream(
            self.tokenizer,
            stops=sampling.stop,
            hidden=frozenset(sampling.stop_token_ids) | self.end_tokens,
            spelled=self._spelled,
            min_tokens=sampling.min_tokens,
            logprobs=sampling.logprobs is not None,
        )

    def watcher_guide(self, request: Request) -> bytes:
        """What makes a watcher of the request's stop strings in the engine's process."""
        sampling = request.sampling
        hidden = frozenset(sampling.stop_token_ids) | self.end_tokens
        return watcher_guide(sampling.stop, hidden, self._spelled, sampling.min_tokens)

    def parser(self, request: Request, prepared: Prepared, choice: int) -> OutputParser:
        """A fresh parser for one choice's text."""
        prefill = prefill_of(request)
        calls: CallParser | ResumedCalls | None = None
        if prepared.tools:
            schemas = {tool.name: tool.parameters for tool in prepared.tools}
            # What the grammar calls a call: beside a format of its own, only what has the opening mark.
            formatted = request.format.kind != "text" and request.tool_choice.mode == "auto"
            calls = CallParser(self.format, schemas, request.id, choice, formatted=formatted)
            if prefill:
                calls = ResumedCalls(calls, prefill)
        splitter = self._reasoner.splitter(prepared.thinking) if prepared.reasons else None
        return OutputParser(choice, calls, splitter)

    def refuse_by_size(self, request: Request) -> None:
        """Raises ContextLengthExceeded for what cannot fit by its mere number of characters; cheap."""
        refuse_by_size(
            request, token_chars=self._token_chars, context_length=self._readable, model=self._name
        )

    @property
    def _reads_last_message(self) -> bool:
        """Whether an encoder reads what the user said last, for want of a chat template."""
        return self.source_form is not None and isinstance(self._chat, PentadError)

    def _rendered(self, request: Request) -> tuple[list[Piece], bool]:
        """The prompt as pieces, and whether it ends inside the reasoning."""
        if request.text is not None:
            return [(request.text, True)], False
        if request.messages is None:
            return [], False
        if self._reads_last_message:
            last = source_message(request.messages, self._name, tools=bool(offered(request)))
            return [(last.content, False)], False
        if isinstance(self._chat, PentadError):
            raise InvalidRequest(
                f"model {self._name!r} cannot chat: {self._chat.message}",
                hint="use /v1/completions, or a model file with a chat template",
                param="messages",
            ) from self._chat
        shown = marked(request.messages, self._encoder, self._name)
        presented = offered(request) if request.shown_tools is None else request.shown_tools
        rows, tools = adapt(shown.messages, presented, self._chat.features, self.format)
        features, options = self._chat.features, self._reasoner.wishes(request).options
        rows = shown.rows(rows, features)
        segments = self._chat.template.render(rows, tools, options, continues=request.continues)
        thinking = self._reasoner.inside(request, segments[-1].text if segments else "")
        written = self._encoder.mark if self._encoder is not None and features.parts else None
        return shown.pieces(((s.text, s.is_control) for s in segments), written), thinking

    def _tokenized(self, request: Request, pieces: Sequence[Piece]) -> tuple[tuple[int, ...], list[Placed]]:
        """The tokens, and where the rows of which part begin."""
        if request.token_ids is not None:
            self._check_ids("prompt", request.token_ids)
            return tuple(request.token_ids), []
        limit = PATIENCE * self._readable
        ids: list[int] = []
        places: list[Placed] = []
        for piece in pieces:
            if isinstance(piece, Media):
                place(piece, self._encoder, self.tokenizer, ids, places)
            else:
                ids += self.tokenizer.encode(piece[0], special=piece[1], limit=limit - len(ids))
            if len(ids) > limit:
                break
        param = "prompt" if request.messages is None else "messages"
        refuse_if_cut(len(ids), param=param, context_length=self._readable, model=self._name)
        if self.source_form is not None:
            return (*self._prefixed(ids), *self.tokenizer.suffix), places
        return tuple(ids if request.text is None else self._prefixed(ids)), places

    def _prefixed(self, ids: list[int]) -> list[int]:
        """The tokens behind those that the model expects before every text."""
        prefix = self.tokenizer.prefix
        return ids if tuple(ids[: len(prefix)]) == prefix else [*prefix, *ids]

    def _reference(self, request: Request) -> tuple[int, ...]:
        limit = PATIENCE * self.context_length
        ids = self.tokenizer.encode(request.prediction, special=False, limit=limit)
        refuse_if_cut(len(ids), param="prediction", context_length=self.context_length, model=self._name)
        return tuple(ids)

    def _check(self, request: Request) -> None:
        if not 1 <= request.sampling.n <= MAX_CHOICES:
            raise InvalidRequest(
                f"{request.sampling.n} choices are asked, 1 to {MAX_CHOICES} are possible",
                hint="lower n",
                param="n",
            )
        if request.tools and request.messages is None:
            raise InvalidRequest(
                "tools need a conversation, but the prompt is plain", hint="send `messages`", param="tools"
            )
        self._check_ids("logit_bias", request.sampling.logit_bias)
        self._check_ids("stop_token_ids", request.sampling.stop_token_ids)

    def _check_ids(self, param: str, ids: Iterable[int]) -> None:
        size = self.tokenizer.vocab_size
        for id in ids:
            if not 0 <= id < size:
                raise InvalidRequest(
                    f"{param} holds token id {id}, {self._name!r} has ids 0 to {size - 1}",
                    hint=f"leave it out of `{param}`",
                    param=param,
                )
