"""SimulatedModel: a backend whose time comes from a cost model and whose answers are as earlier ones were."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from pentad.application.bench.elastic.run_line import RunLine
from pentad.errors import ContextLengthExceeded
from pentad.execution.backend import Capabilities, ChoiceDone, Delta, StreamDone, TextDelta
from pentad.execution.request import TokenRequest
from pentad.resource.simulator.shared_device import DeviceEngine, SharedDevice
from pentad.types import Request, Usage

_FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "choice", "grammar"})
_CHARS = 4
"""Of a token."""
RIGHT, WRONG = "Answer: right", "Answer: wrong"


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer will be."""

    right: bool
    tokens: int


@dataclass(slots=True, kw_only=True)
class Recorded:
    """How earlier runs went, as answers are drawn from.

    A task that was met by this model in this way goes as it did then; another one as its class's runs did,
    by a draw that depends on seed and task alone, so policies meet the same luck.
    """

    lines: Sequence[RunLine]
    seed: int
    qualities: dict[str, float] = field(default_factory=dict)
    """What is said of models without runs."""
    answer_tokens: int = 96
    """Of answers nobody has met."""
    _groups: dict[tuple[str, ...], list[RunLine]] = field(init=False)

    def __post_init__(self) -> None:
        self._groups = defaultdict(list)
        for one in self.lines:
            if one.model and one.model_calls and one.judges:
                self._groups["task", one.task, one.model, one.way].append(one)
                self._groups["way", one.slo_class, one.model, one.way].append(one)
                self._groups["model", one.slo_class, one.model].append(one)

    def expected(self, task: str, slo_class: str, model: str, way: str) -> Expected:
        """Right or wrong, and how long; the same for the same arguments."""
        draw = int.from_bytes(hashlib.blake2b(f"{self.seed}/{task}".encode(), digest_size=8).digest()) / 2**64
        keys = (("task", task, model, way), ("way", slo_class, model, way), ("model", slo_class, model))
        group = next((self._groups[key] for key in keys if key in self._groups), [])
        if not group:
            return Expected(draw < self.qualities.get(model, 0.5), self.answer_tokens)
        share = sum(one.right for one in group) / len(group)
        like = group[int(draw * len(group))]
        return Expected(draw < share, max(1, round(like.completion_tokens / like.model_calls)))


class SimulatedModel:
    """Implements Backend on an engine of a shared device.

    Args:
        task_of: the id of the task that a prompt is about, by its messages' contents.
        way_of: by class the way of asking, where the router does not say it.
    """

    def __init__(
        self,
        name: str,
        device: SharedDevice,
        engine: DeviceEngine,
        recorded: Recorded,
        *,
        task_of: Callable[[Request], str],
        way_of: Callable[[str], str],
    ) -> None:
        self._name, self._device, self._engine, self._recorded = name, device, engine, recorded
        self._task_of, self._way_of = task_of, way_of
        self._runs: dict[str, Expected] = {}
        length = engine.engine.max_sequence_tokens
        self._can = Capabilities(model=name, context_length=length, formats=_FORMATS, token_prompts=True)

    @property
    def capabilities(self) -> Capabilities:
        return self._can

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """An answer of the expected length, whose text says whether it is right."""
        prompt = self._prompt(request)
        room = self._can.context_length - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt)} tokens, model {self._name!r} takes {self._can.context_length}"
            )
        expected = self._expected(request)
        limit = min(room, request.sampling.max_tokens or room)
        length = max(1, min(expected.tokens, limit))
        asked = [
            TokenRequest(
                id=f"{request.id}/{choice}",
                prompt=prompt,
                sampling=request.sampling,
                max_tokens=length,
                choice=choice,
                tenant=request.tenant,
                priority=request.priority,
                context=request.context,
            )
            for choice in range(request.sampling.n)
        ]
        cached = drawn = 0
        async with aclosing(self._device.generate(self._engine, asked)) as outputs:
            async for output in outputs:
                choice = int(output.id.rpartition("/")[2])
                if drawn == 0 and output.drawn:
                    # The text's first piece: what measures the time to the first token waits for it.
                    yield TextDelta(text="\n", choice=choice)
                drawn += len(output.drawn)
                if output.finish is None:
                    continue
                cached = max(cached, 0 if output.stats is None else output.stats.cached_tokens)
                whole = expected.tokens <= limit
                text = (RIGHT if expected.right else WRONG) if whole else "It is cut"
                yield TextDelta(text=text, choice=choice)
                yield ChoiceDone(reason="stop" if whole else "length", choice=choice)
        usage = Usage(prompt_tokens=len(prompt), cached_tokens=cached, completion_tokens=drawn)
        yield StreamDone(usage=usage)

    def count_tokens(self, request: Request) -> int:
        """As many as the simulation computes."""
        return len(self._prompt(request))

    def tokenize(self, text: str, *, prefix: bool = False) -> list[int]:  # noqa: ARG002
        """One token for each few characters."""
        vocab = self._engine.engine.runner.spec.vocab_size
        return [
            zlib.crc32(text[at : at + _CHARS].encode("utf-8", "surrogatepass")) % vocab
            for at in range(0, len(text), _CHARS)
        ]

    def stats(self) -> dict[str, float]:
        """Of the engine."""
        return self._engine.engine.stats()

    def check(self) -> str | None:
        """None: it is always well."""
        return None

    async def close(self) -> None:
        """Gives the engine back."""
        self._engine.engine.close()

    def _prompt(self, request: Request) -> tuple[int, ...]:
        said = "".join(f"{one.role}\n{one.content}\n" for one in request.messages or ())
        tools = msgspec.json.encode([[one.name, one.description, one.parameters] for one in request.tools])
        return tuple(self.tokenize((tools.decode() if request.tools else "") + (request.text or said))) or (
            0,
        )

    def _expected(self, request: Request) -> Expected:
        """What the first call of a run comes to holds for its further ones."""
        run, slo_class = request.context.run_id or request.id, request.context.task or ""
        if run not in self._runs:
            way = self._way_of(slo_class) if request.forecast is None else request.forecast.way
            task = self._task_of(request)
            self._runs[run] = self._recorded.expected(task, slo_class, self._name, way)
        return self._runs[run]
