"""ModelService sends each request to the right backend and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pentad.errors import Forbidden, Incompatible, ModelNotFound
from pentad.execution.backend import Capabilities, Delta, StreamDone, TextDelta
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import OutputFormat, Request, RunContext, Sampling, ToolSpec


def service(turns: Sequence[Turn] = (["hi"],)) -> tuple[ModelService, dict[str, ScriptedBackend]]:
    backends = {
        "small": ScriptedBackend(turns, model="small", repeat=True),
        "cloud": ScriptedBackend(
            turns,
            capabilities=Capabilities(
                model="cloud", context_length=100, remote=True, tools=False, formats=frozenset({"text"})
            ),
            repeat=True,
        ),
    }
    made = ModelService(backends, router=Fixed(), default="cloud", clock=lambda: 5.0, wall_clock=lambda: 1e9)
    return made, backends


def ask(model: str = "small", **change: object) -> Request:
    return Request(id="r", model=model, text="a b", **change)  # type: ignore[arg-type]


def test_the_named_model_answers_and_the_choice_is_recorded() -> None:
    models, backends = service()
    answer = asyncio.run(models.complete(ask("small")))
    assert answer.message.content == "hi"
    assert len(backends["small"].requests) == 1
    assert not backends["cloud"].requests
    decision = answer.usage.decisions[0]
    assert (decision.layer, decision.policy, decision.chosen) == ("model", "fixed", "small")
    assert [name for name, _ in decision.candidates] == ["cloud", "small"]
    assert answer.usage.spans[0].name == "route"


def test_an_empty_model_name_means_the_default() -> None:
    models, backends = service()
    asyncio.run(models.complete(ask("")))
    assert len(backends["cloud"].requests) == 1


def test_the_default_is_listed_first() -> None:
    models, _ = service()
    assert [(card.name, card.created_s, card.kind) for card in models.models()] == [
        ("cloud", 1_000_000_000, "generate"),
        ("small", 1_000_000_000, "generate"),
    ]


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    models, _ = service()
    with pytest.raises(ModelNotFound, match="cloud, small"):
        asyncio.run(models.complete(ask("none")))


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"context": RunContext(data_label="local")}, Forbidden, "data_label"),
        ({"tools": (ToolSpec(name="t"),)}, Incompatible, "tools"),
        ({"format": OutputFormat(kind="json_object")}, Incompatible, "response_format"),
        ({"sampling": Sampling(logprobs=0)}, Incompatible, "logprobs"),
    ],
)
def test_what_a_model_may_not_or_cannot_do_is_refused(
    change: dict[str, object], error: type[Exception], param: str
) -> None:
    models, backends = service()
    with pytest.raises(error) as caught:
        asyncio.run(models.complete(ask("cloud", **change)))
    assert caught.value.param == param  # type: ignore[attr-defined]
    assert not backends["cloud"].requests


def test_closing_the_stream_closes_the_backend_stream() -> None:
    models, backends = service([["a", asyncio.Event()]])

    async def run() -> Delta:
        stream = models.stream(ask())
        first = await anext(stream)
        await stream.aclose()
        return first

    assert asyncio.run(run()) == TextDelta(text="a")
    assert backends["small"].closed_early == 1


def test_the_last_delta_stays_the_usage() -> None:
    models, _ = service()

    async def run() -> list[Delta]:
        return [delta async for delta in models.stream(ask())]

    assert isinstance(asyncio.run(run())[-1], StreamDone)


def test_trouble_names_the_model() -> None:
    models, backends = service()
    assert models.check() is None
    backends["small"].trouble = "no token for 30 s"
    assert models.check() == "model 'small': no token for 30 s"


def test_close_closes_every_backend() -> None:
    models, backends = service()
    asyncio.run(models.close())
    assert all(backend.closed for backend in backends.values())


def test_a_remote_tokenizer_is_refused() -> None:
    models, _ = service()
    with pytest.raises(Incompatible, match="tokenizer"):
        models.tokenize("cloud", "x")


def test_an_unknown_default_is_refused() -> None:
    with pytest.raises(ModelNotFound, match="known: a"):
        ModelService({"a": ScriptedBackend([])}, router=Fixed(), default="b")


class Lengths:
    """Embeds a text as its length."""

    dimensions = 1
    asked = 0

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        self.asked += 1
        return [[float(len(text))] for text in texts], sum(map(len, texts))


def test_texts_are_embedded_by_the_named_embedder_and_counted() -> None:
    embedder = Lengths()
    models = ModelService(
        {"small": ScriptedBackend([])}, embedders={"lengths": embedder}, router=Fixed(), clock=lambda: 1.0
    )
    got = asyncio.run(models.embed("lengths", ["a", "bcd"]))
    assert got.vectors == [[1.0], [3.0]]
    assert got.usage.prompt_tokens == 4
    assert embedder.asked == 1, "texts are tokenized once, for vectors and usage"
    assert got.usage.spans[0].layer == "execution"
    assert [(card.name, card.kind) for card in models.models()] == [
        ("small", "generate"),
        ("lengths", "embed"),
    ]
    with pytest.raises(ModelNotFound, match="lengths"):
        asyncio.run(models.embed("small", ["a"]))
