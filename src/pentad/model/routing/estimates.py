"""What a request would need of each model: tokens, money, time. Estimates that routers share."""

from __future__ import annotations

from collections.abc import Mapping

from pentad.errors import Infeasible
from pentad.model.routing.base import Candidate, RouterInput, fit
from pentad.model.routing.fixed import Fixed
from pentad.types import Request

ANY = ("", "auto")
"""Names of no model: the router is to choose."""


def able(state: RouterInput) -> Mapping[str, Candidate]:
    """Who may serve: the model that is named, or all that can.

    Raises what `Fixed` or `fit` raise where nobody may or can.
    """
    request = state.request
    if request.model in ANY:
        return fit(state)
    Fixed().route(state)
    return {request.model: state.candidates[request.model]}


def good_enough(candidates: Mapping[str, Candidate], floor: float) -> dict[str, Candidate]:
    """Those of at least that quality; one that nobody states counts as 0. Raises Infeasible if none is."""
    good = {name: c for name, c in candidates.items() if floor == 0 or (c.quality or 0.0) >= floor}
    if not good:
        best = max(candidates.values(), key=lambda c: c.quality or 0.0).quality
        raise Infeasible(
            f"no model that may serve this has a quality of {floor:g}; the best of "
            f"{', '.join(candidates)} has {'none stated' if best is None else f'{best:g}'}",
            hint="lower `quality`, serve a better model, or state its quality in the settings",
            param="quality",
        )
    return good


def prompt_tokens(request: Request) -> int:
    """Of the prompt by its characters, four to a token; at least 1."""
    if request.token_ids is not None:
        return len(request.token_ids)
    texts = [m.content for m in request.messages or ()] if request.text is None else [request.text]
    return max(1, sum(map(len, texts)) // 4)


def answer_tokens(request: Request, assumed: int) -> int:
    """Of one answer: as many as its sender expects, else its limit, else what is assumed."""
    limit, expected = request.sampling.max_tokens, request.context.hints.output_tokens
    if expected is None:
        return limit or assumed
    return min(expected, limit or expected)


def cost(request: Request, candidate: Candidate, assumed: int) -> float:
    """Money for the request at the candidate's price; `assumed` tokens where nobody says how long it gets."""
    answers = answer_tokens(request, assumed) * request.sampling.n
    return candidate.price.at_most(prompt_tokens(request), answers)


def first_s(request: Request, candidate: Candidate, assumed: int) -> float:
    """Expected seconds until the answer begins; 0 for a candidate without a measured speed.

    Who waits there already comes before: as many answers at the measured speed, as many at a time as run.
    """
    speed, load = candidate.speed, candidate.load
    if speed is None:
        return 0.0
    rounds = load.get("waiting", 0.0) / max(1.0, load.get("running", 0.0))
    return speed.first_s(prompt_tokens(request)) + rounds * assumed * speed.token_s


def total_s(request: Request, candidate: Candidate, assumed: int) -> float:
    """Expected seconds until the answer is whole; 0 for a candidate without a measured speed."""
    if candidate.speed is None:
        return 0.0
    decode_s = answer_tokens(request, assumed) * candidate.speed.token_s
    return first_s(request, candidate, assumed) + decode_s
