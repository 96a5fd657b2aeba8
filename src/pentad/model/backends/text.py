"""From drawn tokens to text: whole characters, stop strings, log probabilities."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pentad.errors import BackendFailed
from pentad.execution.backend import TokenLogprob
from pentad.execution.batch import Drawn
from pentad.model.tokenizer import Detokenizer, Tokenizer
from pentad.model.toolcalls.parser import overlap


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token released: text that may be shown, and the tokens that it came from."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class TextStream:
    """Turns one sequence's tokens into text, once; implements the engine's Watcher.

        produced   [ The quick brown fox jum ]       all text of the tokens so far
        released   [ The quick brown f ]             what may be shown
        held                          [ox jum]       could be the beginning of a stop string

    No part of a stop string is ever released. With stop strings the engine's thread calls
    `accept`, so that the sequence ends with the very token that completes one; without, the
    consumer does. `take` belongs to the consumer alone.

    Args:
        tokenizer: of the model.
        stops: stop strings; the earliest in the text wins, then the first listed.
        hidden: tokens that end the answer and show no text.
        spelled: control tokens whose text matters to the parsers behind.
        min_tokens: stop strings count from this many tokens on.
        logprobs: whether to keep log probabilities.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        hidden: Collection[int] = frozenset(),
        spelled: Collection[int] = frozenset(),
        min_tokens: int = 0,
        logprobs: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = tuple(stop for stop in stops if stop)
        self._hidden = hidden
        self._spelled = spelled
        self._min_tokens = min_tokens
        self._logprobs = logprobs
        self._tokens = 0
        self._held = ""
        self._produced_chars = 0
        self._released_chars = 0
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()
        """Log probabilities not yet given out, with where their token begins in the text."""
        self._pieces: deque[Piece] = deque()
        self.stop: str | None = None
        """The stop string that ended the text."""

    def accept(self, drawn: Drawn) -> bool:
        """Takes the next token; True when its text completes a stop string."""
        self._tokens += 1
        if drawn.token in self._hidden:
            self._pieces.append(Piece())
            return False
        if self._logprobs and drawn.logprob is not None:
            self._waiting.append((self._produced_chars, self._logprob(drawn)))
        if drawn.token in self._spelled:
            text = self._tokenizer.token(drawn.token)
        else:
            text = self._detokenizer.push(drawn.token)
        self._produced_chars += len(text)
        if text or not self._stops:
            self._pieces.append(self._release(text))
        else:
            self._pieces.append(Piece())
        return self.stop is not None

    def take(self, tokens: int) -> Piece:
        """What the next `tokens` accepted tokens released, together."""
        pieces = [self._pieces.popleft() for _ in range(tokens)]
        if len(pieces) == 1:
            return pieces[0]
        return Piece(
            "".join(piece.text for piece in pieces),
            tuple(entry for piece in pieces for entry in piece.logprobs),
        )

    def finish(self) -> Piece:
        """What was held back when the sequence ended for another reason than a stop string."""
        if self.stop is not None:
            return Piece()
        tail = self._detokenizer.flush()
        self._produced_chars += len(tail)
        text = self._held + tail
        self._held = ""
        self._released_chars += len(text)
        entries = tuple(entry for _, entry in self._waiting)
        self._waiting.clear()
        return Piece(text, entries)

    def _release(self, text: str) -> Piece:
        whole = self._held + text
        keep = 0
        if self._stops and self._tokens >= self._min_tokens:
            found = [(at, i) for i, stop in enumerate(self._stops) if (at := whole.find(stop)) >= 0]
            if found:
                at, first = min(found)
                self.stop = self._stops[first]
                whole = whole[:at]
            else:
                keep = max(overlap(whole, stop) for stop in self._stops)
        shown = whole[: len(whole) - keep]
        self._held = whole[len(whole) - keep :]
        self._released_chars += len(shown)
        entries: list[TokenLogprob] = []
        while self._waiting and self._waiting[0][0] < self._released_chars:
            entries.append(self._waiting.popleft()[1])
        return Piece(shown, tuple(entries))

    def prompt_logprobs(self, prompt: Sequence[int], scored: Sequence[Drawn]) -> tuple[TokenLogprob, ...]:
        """The prompt's tokens as they are reported; the first has no log probability.

        Raises:
            BackendFailed: the model has no number for one of them.
        """
        if any(one.logprob is None for one in scored):
            raise BackendFailed("the model's logits behind a token of the prompt are no numbers")
        return (self._logprob(Drawn(token=prompt[0])), *map(self._logprob, scored))

    def _logprob(self, drawn: Drawn) -> TokenLogprob:
        data = self._tokenizer.token_bytes(drawn.token)
        alternatives = []
        for token, logprob in drawn.alternatives:
            other = self._tokenizer.token_bytes(token)
            alternatives.append((other.decode("utf-8", "replace"), other, logprob))
        return TokenLogprob(
            text=data.decode("utf-8", "replace"),
            data=data,
            logprob=drawn.logprob if drawn.logprob is not None else 0.0,
            alternatives=tuple(alternatives),
        )
