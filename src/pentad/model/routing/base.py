"""What the model service asks of a router, and the checks that every router shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pentad.content import Media
from pentad.errors import Forbidden, Incompatible, PentadError
from pentad.execution.backend import Capabilities
from pentad.model.prices import FREE, Price
from pentad.model.routing.speed import Speed
from pentad.resource.offloading.base import LOCAL_LABEL
from pentad.types import Decision, Request

if TYPE_CHECKING:
    from pentad.model.control.outcomes import Outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One served model as a router sees it, now."""

    can: Capabilities
    price: Price = FREE
    quality: float | None = None
    """0 to 1, of the catalogue or the settings; None where nobody says."""
    load: Mapping[str, float] = field(default_factory=dict)
    """The backend's gauges and counters: `running`, `waiting` ...; empty for one that has none."""
    speed: Speed | None = None
    """As its requests met it; None before any has ended."""


VectorOf = Callable[[str, str], tuple[float, ...] | None]
"""Of an encoder's name and a text."""


def nobody_embeds(_encoder: str, _text: str) -> tuple[float, ...] | None:
    """No vector."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterInput:
    """The state that one routing choice is made from.

    The request carries objective, budget, data label and its place in the run's graph.
    """

    request: Request
    candidates: Mapping[str, Candidate]
    """By the name under which each model is served, the default first."""
    default: str
    now_s: float
    vector: VectorOf = nobody_embeds
    """Of an encoder's name and a text: the text's unit vector, or None where that encoder is not loaded."""
    ways: Mapping[str, Request] = field(default_factory=dict)
    """Other ways of asking the same, by name, where an agent leaves the choice; the first is `request`."""
    outcomes: Outcomes | None = None
    """What came of answers so far; None: nobody keeps it."""


class ModelRouter(Protocol):
    """Chooses the backend of a request (coverage.md, interface 10). The same input gives the same choice."""

    @property
    def name(self) -> str: ...

    @property
    def enforces(self) -> frozenset[str]:
        """Fields of `Objective` that every choice keeps; others that nothing keeps are refused."""
        ...

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The name of the backend and why.

        Raises ModelNotFound, Incompatible or Forbidden when no candidate may serve the request.
        """
        ...


@runtime_checkable
class Questioner(ModelRouter, Protocol):
    """A router that goes by a text's vector, which is made before it is asked, off the event loop."""

    def question(self, request: Request) -> tuple[str, str] | None:
        """Encoder and text of the vector that `route` will want of this request; None: it wants none."""
        ...


@runtime_checkable
class Controller(ModelRouter, Protocol):
    """A router that chooses more than the model: how it is asked, how long and how urgent the answer is."""

    def control(self, state: RouterInput) -> Request:
        """The request as it is to be sent, `routed` and with its forecast. Raises as `route` does."""
        ...


def fit(state: RouterInput) -> dict[str, Candidate]:
    """The candidates that may and can serve the request.

    Raises what `refuse_unfit` says of the default, or else of the first, when there is none.
    """
    refusals: dict[str, PentadError] = {}
    found: dict[str, Candidate] = {}
    for name, candidate in state.candidates.items():
        try:
            refuse_unfit(state, name)
        except PentadError as error:
            refusals[name] = error
        else:
            found[name] = candidate
    if not found:
        raise refusals.get(state.default) or next(iter(refusals.values()))
    return found


def refuse_unfit(state: RouterInput, name: str) -> None:
    """Raises when that candidate may not or cannot serve the request; returns otherwise.

    Raises:
        Forbidden: the request's data label keeps it on this machine and the backend is remote.
        Incompatible: the request asks for something that the backend does not do.
    """
    request, can = state.request, state.candidates[name].can
    if can.remote and request.context.data_label == LOCAL_LABEL:
        raise Forbidden(
            f"data label {LOCAL_LABEL!r} keeps this request on this machine, but model {name!r} is remote",
            hint="choose a local model or change `data_label`",
            param="data_label",
        )
    if request.tools and request.tool_choice.mode != "none" and not can.tools:
        raise Incompatible(
            f"model {name!r} cannot call tools",
            hint="leave `tools` out or choose another model",
            param="tools",
        )
    if request.format.kind not in can.formats:
        raise Incompatible(
            f"model {name!r} cannot write format {request.format.kind!r}, only {_listed(can.formats)}",
            hint="change `response_format` or choose another model",
            param="response_format",
        )
    if request.sampling.logprobs is not None and not can.logprobs:
        raise Incompatible(
            f"model {name!r} reports no log probabilities", hint="leave `logprobs` out", param="logprobs"
        )
    if request.token_ids is not None and not can.token_prompts:
        raise Incompatible(
            f"model {name!r} takes no token ids as a prompt", hint="send text or messages", param="prompt"
        )

    if media := request.media:
        _refuse_media(media, name, state.candidates)


def _refuse_media(media: Sequence[Media], name: str, candidates: Mapping[str, Candidate]) -> None:
    kinds = {one.kind for one in media}
    wrong = next((one for one in media if one.kind not in candidates[name].can.media), None)
    if wrong is None:
        return
    able = [other for other, candidate in candidates.items() if kinds <= candidate.can.media]
    takes = _listed(candidates[name].can.media | {"text"})
    raise Incompatible(
        f"model {name!r} takes {takes}, but a message holds the {wrong.told}",
        hint=f"served models that take it: {', '.join(able)}"
        if able
        else "send text only; no served model takes it (remote ones by `media` in `backends`)",
        param="messages",
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
