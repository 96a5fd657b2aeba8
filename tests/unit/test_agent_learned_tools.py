"""The tool policy `learned`: what a trained head changes, how it is trained, and which files it refuses."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from test_agent_tool_policies import TOOLS, encoder, seen

from agent_support import harness, run, spec
from pentad.agent.spec_check import check_strategies
from pentad.agent.tool_events import ToolsOffered
from pentad.agent.tool_listing import tools_of
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.pins import ToolPins
from pentad.agent.tools.policy.learned import Learned
from pentad.agent.tools.policy.retrieve import Retrieve
from pentad.agent.tools.policy.training import trained
from pentad.choice import Choice
from pentad.errors import BadModelFile, Incompatible, InvalidRequest
from pentad.model.relevance import Relevance
from pentad.model.relevance_head import RelevanceHead, read_head, write_head
from pentad.model.relevance_training import Lessons, nearest_share, train_head
from pentad.testing.agents import WordEmbedder

SIZE = 16


def axis(place: int) -> list[float]:
    return [float(place == each) for each in range(SIZE)]


PLACES = {"crimson": 1, "red": 1, "blue": 2, "green": 3}


def axes() -> Relevance:
    """Colours, each along an axis of its own; `crimson` lies where `red` does."""

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return [axis(PLACES[text]) for text in texts]

    return Relevance(embed, encoder="axes")


def head(moves: dict[int, int], encoder: str = "axes", size: int = SIZE) -> RelevanceHead:
    """One under which a question along one axis lies along another."""
    question = np.zeros((size, size), np.float32)
    for start, end in moves.items():
        question[start, start], question[start, end] = -1, 1
    return RelevanceHead(encoder=encoder, question=question, text=np.zeros_like(question))


def noisy(chance: np.random.Generator, count: int = 60) -> Lessons:
    """Texts and questions with the first half of their numbers in common; the other says nothing."""
    half = SIZE // 2
    common = chance.normal(size=(count, half))
    rows = [
        np.hstack([common + 0.1 * chance.normal(size=(count, half)), 1.5 * chance.normal(size=(count, half))])
        for _ in range(2)
    ]
    asked, texts = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows)
    return Lessons(questions=asked, texts=texts, right=tuple(range(count)), words=np.zeros((count, count)))


@pytest.mark.row("tool-tptu2", "mechanism")
def test_what_was_learned_says_which_texts_a_question_means() -> None:
    relevance, texts = axes(), ["red", "blue", "green"]
    # No word is shared, so the score is the cosine's part, 1 of 1.3.
    plain = run(relevance.scores(["crimson"], texts))
    assert plain == pytest.approx([1 / 1.3, 0, 0])
    mapped = run(relevance.scores(["crimson"], texts, head=head({1: 3})))
    assert mapped == pytest.approx([0, 0, 1 / 1.3])
    assert run(relevance.scores(["crimson"], texts, head=head({}))) == plain


@pytest.mark.row("tool-tptu2", "mechanism")
def test_training_brings_questions_nearer_to_texts_that_it_never_saw() -> None:
    gained = []
    for seed in (3, 4):
        whole = noisy(np.random.default_rng(seed), 120)
        known = Lessons(
            questions=whole.questions[:80],
            texts=whole.texts[:80],
            right=whole.right[:80],
            words=whole.words[:80, :80],
        )
        new = Lessons(
            questions=whole.questions[80:],
            texts=whole.texts[80:],
            right=tuple(range(40)),
            words=whole.words[80:, 80:],
        )
        made = train_head(known, encoder="axes", steps=400)
        assert made.steps > 0
        assert made.examples == 80
        gained.append(nearest_share(new, made) - nearest_share(new))
    assert min(gained) > 0.05


def test_equal_lessons_make_equal_heads_and_hopeless_ones_none() -> None:
    lessons = noisy(np.random.default_rng(1))
    first, second = (train_head(lessons, encoder="axes", steps=20) for _ in range(2))
    assert np.array_equal(first.question, second.question)
    assert np.array_equal(first.text, second.text)
    # Questions that already mean their texts exactly: on those held out each step is a loss.
    right = Lessons(
        questions=np.eye(SIZE), texts=np.eye(SIZE), right=tuple(range(SIZE)), words=np.eye(SIZE) * 0.3
    )
    untouched = train_head(right, encoder="axes", steps=1)
    assert nearest_share(right, untouched) == 1


def test_a_head_is_kept_whole_and_what_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "head.npz"
    write_head(file, head({1: 3}))
    found = read_head(str(file))
    assert found.encoder == "axes"
    assert np.array_equal(found.question, head({1: 3}).question)
    assert [path.name for path in tmp_path.iterdir()] == ["head.npz"]
    broken = tmp_path / "broken.npz"
    broken.write_bytes(file.read_bytes()[:100])
    other = tmp_path / "other.npz"
    np.savez(other, format=np.array("something"))
    endless = tmp_path / "endless.npz"
    write_head(
        endless,
        RelevanceHead(
            encoder="axes",
            question=np.full((2, 2), np.inf, np.float32),
            text=np.eye(2, dtype=np.float32),
        ),
    )
    for path, why in (
        (broken, "is no relevance head"),
        (other, "format"),
        (endless, "not square and finite"),
        (tmp_path / "absent", "cannot be read"),
    ):
        with pytest.raises(BadModelFile, match=why) as refused:
            check_strategies(spec(tool_policy=Choice(name="learned", options={"file": str(path)})))
        assert refused.value.hint == "train it again: pentad train-retriever AGENT CALLS --out FILE"


def test_a_head_is_used_on_the_encoder_that_it_was_trained_on_only(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "head.npz"
    write_head(file, head({}, encoder="another"))
    policy = Learned(k=1, file=str(file))
    with pytest.raises(Incompatible, match="trained on 'another'; the encoder here is 'words'"):
        run(policy.offer(seen(), encoder()))
    with pytest.raises(Incompatible, match="no encoder is served") as refused:
        run(policy.offer(seen(), Relevance(None)))
    assert refused.value.hint == "serve an embedding model, e.g. minilm"
    write_head(file, head({}, encoder="words"))
    with pytest.raises(BadModelFile, match="for vectors of 16 numbers, these have 512"):
        run(policy.offer(seen(), encoder()))


def test_without_a_file_it_finds_what_retrieve_finds() -> None:
    for goal in ("Please book a table for two in a restaurant", "Set the alarm"):
        given = seen(goal=goal)
        assert run(Learned(k=2).offer(given, encoder())) == run(Retrieve(k=2).offer(given, encoder()))


@pytest.mark.row("tool-tptu2", "mechanism")
def test_tools_are_found_by_requests_that_share_no_word_with_them_once_these_are_learned(
    tmp_path: pathlib.Path,
) -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return WordEmbedder().embed_counted(texts)[0]

    asked = {
        "Do I need an umbrella": "weather",
        "Will it rain on us": "weather",
        "Wake me early": "alarm",
        "Do not let me sleep": "alarm",
    }
    calls = tmp_path / "calls.jsonl"
    lines = [{"input": text, "calls": [{"name": name}]} for text, name in asked.items()]
    calls.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    by_name = {tool.name: tool for tool in TOOLS}
    served = Relevance(embed, encoder="words")
    made = run(trained(str(calls), by_name, served, steps=300, seed=0))
    assert made.tools == len(TOOLS)
    assert made.first_before < 1
    assert made.first_after == 1
    file = tmp_path / "head.npz"
    write_head(file, made.head)
    agent = spec(
        tools=tuple(by_name),
        tool_policy=Choice(name="learned", options={"k": 1, "file": str(file)}),
    )
    offer = run(Learned(k=1, file=str(file)).offer(seen(goal="Wake me early"), served))
    assert offer.tools == ("alarm",)
    assert "the head of" in offer.why

    async def in_a_run() -> None:
        async with harness(tmp_path, [["done"]], TOOLS, embedder=True) as h:
            state = await h.work(agent, "Will it rain on us")
            (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolsOffered)]
            assert event.tools == ("weather",)

    run(in_a_run())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"input": "x", "calls": [{"name": "fly"}]}', "call 'fly', which is no tool of the agent"),
        ('{"input": "x", "calls": []}', "line 1 has no text 'input' and list 'calls'"),
        ('{"input": "x", "calls": [{"name": "alarm", "arguments": 3}]}', "line 1 has no"),
        ("no JSON", "line 1 has no"),
        ("", "are none"),
    ],
)
def test_solved_calls_that_are_none_are_refused(tmp_path: pathlib.Path, line: str, why: str) -> None:
    calls = tmp_path / "calls.jsonl"
    calls.write_text(line, "utf-8")
    tools = {tool.name: tool for tool in TOOLS}
    with pytest.raises(InvalidRequest, match=why):
        run(trained(str(calls), tools, encoder(), steps=1, seed=0))


def test_without_an_encoder_nothing_is_learned(tmp_path: pathlib.Path) -> None:
    calls = tmp_path / "calls.jsonl"
    calls.write_text('{"input": "x", "calls": [{"name": "alarm"}]}', "utf-8")
    with pytest.raises(Incompatible, match="training needs an encoder"):
        run(trained(str(calls), {tool.name: tool for tool in TOOLS}, Relevance(None), steps=1, seed=0))


def test_the_tools_of_an_agent_are_listed_without_a_run(tmp_path: pathlib.Path) -> None:
    code = tmp_path / "own.py"
    code.write_text('def price(item: str) -> str:\n    "Gives a price."\n    return item\n', "utf-8")
    found = run(
        tools_of(spec(tools=(f"{code}:price", "calculator")), pins=ToolPins(), logins=Logins(), commands=())
    )
    assert {name: tool.description for name, tool in found.items()}["price"] == "Gives a price."
    assert set(found) == {"price", "calculator"}
