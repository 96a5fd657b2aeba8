"""Skills and AGENTS.md: listed briefly, read when needed, and nothing outside their folder with them."""

from __future__ import annotations

import pathlib

import pytest

from agent_support import call, context, harness, run, spec
from pentad.agent.loading import load_agent
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import ToolServices
from pentad.agent.tools.builtin.skill import build
from pentad.agent.tools.skills import find_skills
from pentad.errors import InvalidRequest, NotFound, ToolFailed

BODY = "Write the total in euros, then the date."


@pytest.fixture
def skills(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "skills"
    for name, about in (("invoices", "How invoices are written here."), ("letters", "How letters begin.")):
        (folder / name).mkdir(parents=True)
        text = f"---\nname: {name}\ndescription: {about}\nlicense: MIT\n---\n\n# {name}\n{BODY}\n"
        (folder / name / "SKILL.md").write_text(text)
    (folder / "invoices" / "references").mkdir()
    (folder / "invoices" / "references" / "vat.md").write_text("VAT is 19%.")
    (tmp_path / "secret").write_text("canary")
    (folder / "invoices" / "link.md").symlink_to(tmp_path / "secret")
    return folder


def services() -> ToolServices:
    return ToolServices(models=None)  # type: ignore[arg-type]


def test_the_model_sees_a_line_of_each_and_reads_one_when_it_needs_it(
    tmp_path: pathlib.Path, skills: pathlib.Path
) -> None:
    agent = spec(tools=("skill",), tool_options={"skill": {"folder": str(skills)}})

    async def check() -> None:
        async with harness(tmp_path, [[call("skill", skill="invoices")], ["done"]]) as h:
            state = await h.work(agent, "Write an invoice")
            (offered,) = h.backend.requests[0].tools
            assert (
                "- invoices: How invoices are written here.\n- letters: How letters begin."
                in offered.description
            )
            assert BODY not in offered.description
            (result,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolReturned)]
            assert BODY in result.content
            assert "references/vat.md" in result.content
            assert "license" not in result.content
            assert any(BODY in message.content for message in h.backend.requests[1].messages)

    run(check())


def test_other_files_of_a_skill_are_read_by_name(skills: pathlib.Path) -> None:
    tool = build(services(), folder=str(skills))
    assert run(tool.call({"skill": "invoices", "file": "references/vat.md"}, context())) == "VAT is 19%."


@pytest.mark.parametrize(
    "file",
    ["../letters/SKILL.md", "../../secret", "/etc/passwd", "link.md", "no.md", "a\0b", ".", "references"],
)
def test_nothing_outside_the_folder_of_a_skill_is_read(skills: pathlib.Path, file: str) -> None:
    tool = build(services(), folder=str(skills))
    with pytest.raises(ToolFailed, match="has no file"):
        run(tool.call({"skill": "invoices", "file": file}, context()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no front matter", "no front matter"),
        ("---\nname: other\ndescription: x\n---\n", "name it 'bad', as its folder"),
        ("---\nname: [bad]\ndescription: x\n---\n", "name it 'bad'"),
        ("---\nname: bad\n---\n", "description must be"),
        ("---\nname: bad\ndescription: ''\n---\n", "description must be"),
        ("---\n- list\n---\n", "name it 'bad'"),
        ("---\nname: bad\ndescription: " + "x" * 1025 + "\n---\n", "1 to 1,024"),
    ],
)
def test_a_skill_that_is_not_as_the_format_says_is_refused_with_the_remedy(
    tmp_path: pathlib.Path, text: str, says: str
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "SKILL.md").write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        find_skills(tmp_path)
    assert says in f"{refused.value.message} {refused.value.hint}"


def test_a_folder_without_skills_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="has no skills"):
        build(services(), folder=str(tmp_path))
    with pytest.raises(InvalidRequest, match="needs a folder"):
        build(services())


def test_an_agents_file_tells_the_agent_how_work_is_done(tmp_path: pathlib.Path) -> None:
    (tmp_path / "AGENTS.md").write_text("Run the tests before you commit.\n")
    file = tmp_path / "helper.yaml"
    file.write_text("name: helper\ninstructions: Be brief.\nguides: [AGENTS.md]\n")
    assert load_agent(file).instructions == "Be brief.\n\nRun the tests before you commit."
    assert load_agent(file).guides == ()
    file.write_text("name: helper\nguides: [NO.md]\n")
    with pytest.raises(NotFound, match=r"names no file: 'NO\.md'"):
        load_agent(file)
