"""Sandboxes: what every registered one keeps to, and what a run makes of code tools."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agent_support import call, context, harness, run, spec
from pentad import registry
from pentad.agent.tool_events import ApprovalAsked, ToolIntended, ToolReturned
from pentad.agent.tools.base import ToolServices
from pentad.agent.tools.builtin.code import build_python, build_shell
from pentad.agent.tools.sandbox.base import Finished, Sandbox
from pentad.agent.tools.sandbox.bubblewrap import Bubblewrap
from pentad.agent.tools.sandbox.cgroup import cgroup
from pentad.agent.tools.sandbox.container import Container
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest, ToolFailed
from sandbox_support import present, python

pytestmark = pytest.mark.thorough

OPTIONS = {"container": {"image": os.environ.get("PENTAD_TEST_IMAGE", "python:3-slim")}}


@pytest.mark.parametrize("name", registry.known("sandbox"))
class TestEverySandbox:
    def box(self, name: str) -> Sandbox:
        return present(build("sandbox", Choice(name=name, options=OPTIONS.get(name, {}))))

    def work(self, name: str, text: str, **fields: Any) -> Finished:
        return run(self.box(name).run(python(text, **fields)))

    def test_returns_what_was_printed(self, name: str) -> None:
        done = self.work(name, "print(6 * 7)")
        assert (done.code, done.output.data, done.errors.data) == (0, b"42\n", b"")

    def test_tells_a_failure_by_its_code_and_the_error(self, name: str) -> None:
        done = self.work(name, "print('before')\nraise ValueError('no more paper')")
        assert done.code == 1
        assert b"before" in done.output.data
        assert b"no more paper" in done.errors.data

    def test_snippets_know_nothing_of_each_other(self, name: str) -> None:
        box = self.box(name)
        run(box.run(python("x = 5\nprint(x)")))
        assert b"NameError" in run(box.run(python("print(x)"))).errors.data

    def test_output_beyond_the_cap_is_counted_and_not_kept(self, name: str) -> None:
        done = self.work(name, "print('x' * 1500)", output_bytes=1000)
        assert (len(done.output.data), done.output.total_bytes) == (1004, 1501)

    def test_cancelling_ends_it_at_once(self, name: str) -> None:
        box = self.box(name)

        async def cut() -> float:
            task = asyncio.create_task(box.run(python("while True: pass")))
            await asyncio.sleep(0.5)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - began

        assert run(cut()) < 2

    def test_what_it_cannot_do_is_refused_when_the_agent_is_made(self, name: str) -> None:
        services = ToolServices(models=None, sandbox=Choice(name=name))  # type: ignore[arg-type]
        kind = registry.load("sandbox", name)
        for language, factory in (("python", build_python), ("shell", build_shell)):
            if language in kind.languages:
                assert factory(services).effects == "none"
                continue
            with pytest.raises(Incompatible, match=f"'{name}' runs no {language}"):
                factory(services)
        if "network" not in kind.reaches:
            with pytest.raises(Incompatible, match="gives no network"):
                build_python(services, network=True)


def test_a_container_is_told_all_limits_and_gets_nothing_more(tmp_path: pathlib.Path) -> None:
    box = Container(image="img", memory_bytes=99 << 20, processes=7)
    told = box.arguments(python("pass"), "pentad-x")
    pairs = set(pairwise(told))
    assert {
        ("--network", "none"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--memory", str(99 << 20)),
        ("--memory-swap", str(99 << 20)),
        ("--pids-limit", "7"),
        ("--pull", "never"),
        ("--user", "65534:65534"),
    } <= pairs
    assert "--read-only" in told
    assert "--volume" not in told
    given = box.arguments(python("pass", folder=str(tmp_path), network=True), "pentad-x")
    assert {("--volume", f"{tmp_path}:/work"), ("--network", "bridge")} <= set(pairwise(given))


def test_a_container_without_image_or_runtime_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "options: {image: NAME}" in run(Container().missing())
    monkeypatch.setenv("PATH", "/nowhere")
    assert "neither of podman and docker" in run(Container(image="x").missing())
    assert "install the package bubblewrap" in run(Bubblewrap().missing())


def services() -> ToolServices:
    present(Bubblewrap())
    return ToolServices(models=None)  # type: ignore[arg-type]


def test_code_works_in_the_folder_that_it_is_given(tmp_path: pathlib.Path) -> None:
    os.chmod(tmp_path, 0o755)
    folder = pathlib.Path("/tmp") / f"pentad-test-{os.getpid()}"
    folder.mkdir()
    try:
        if os.geteuid() == 0:
            tool = build_shell(services(), folder=str(folder))
            with pytest.raises(ToolFailed, match="foreign code is never root"):
                run(tool.call({"code": "id"}, context()))
            os.chown(folder, 65534, 65534)
        tool = build_shell(services(), folder=str(folder))
        assert tool.effects == "unkeyed"
        run(tool.call({"code": "echo kept > note; pwd"}, context()))
        assert (folder / "note").read_text() == "kept\n"
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_folder_that_is_none_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(InvalidRequest, match="no folder"):
        build_python(ToolServices(models=None), folder="/no/such")  # type: ignore[arg-type]


def test_the_code_sees_its_idempotency_key() -> None:
    tool = build_shell(services())
    done = run(tool.call({"code": "echo $PENTAD_TOOL_KEY"}, context()))
    assert done.data == b"run:1:0\n"


def test_failing_code_is_told_with_the_end_of_what_it_said() -> None:
    tool = build_python(services())
    with pytest.raises(ToolFailed, match=r"(?s)code 1.*seen.*KeyError: 'x'"):
        run(tool.call({"code": "print('seen')\n{}['x']"}, context()))


class TestInARun:
    AGENT = spec(tools=("python", "shell"))

    def test_code_is_journaled_with_its_key_and_its_result_reaches_the_model(
        self, tmp_path: pathlib.Path
    ) -> None:
        present(Bubblewrap())

        async def check() -> None:
            turns = [[call("python", code="print(sum(range(101)))")], ["It is 5050."]]
            async with harness(tmp_path, turns) as h:
                state = await h.work(self.AGENT, "Add 1 to 100")
                assert (state.status, state.answer) == ("answered", "It is 5050.")
                events = [record.event for record in h.records(state.run_id)]
                (intent,) = [e for e in events if isinstance(e, ToolIntended)]
                assert (intent.tool, intent.key) == ("python", f"{state.run_id}:1:0")
                (result,) = [e for e in events if isinstance(e, ToolReturned)]
                assert (result.status, result.content) == ("ok", "5050\n")

        run(check())

    def test_a_person_is_asked_and_rules_hold(self, tmp_path: pathlib.Path) -> None:
        agent = replace(self.AGENT, ask=("python",), deny=("shell",), ask_timeout_s=0.05)

        async def check() -> None:
            turns = [[call("python", code="print(1)"), call("shell", "c2", code="id")], ["no"]]
            async with harness(tmp_path, turns) as h:
                state = await h.work(agent)
                events = [record.event for record in h.records(state.run_id)]
                assert [e.tool for e in events if isinstance(e, ApprovalAsked)] == ["python"]
                results = [e for e in events if isinstance(e, ToolReturned)]
                assert {(e.tool, e.status) for e in results} == {("python", "denied"), ("shell", "denied")}
                assert not any(isinstance(e, ToolIntended) for e in events)

        run(check())

    def test_cancelling_the_run_ends_its_code(self, tmp_path: pathlib.Path) -> None:
        present(Bubblewrap())
        marker = f"pentad-{os.getpid()}-{time.monotonic_ns()}"

        def alive() -> bool:
            return any(
                marker.encode() in read(each / "cmdline") for each in pathlib.Path("/proc").glob("[0-9]*")
            )

        async def check() -> None:
            script = f"bash -c 'trap \"\" TERM; while :; do sleep 1; done' {marker}"
            async with harness(tmp_path, [[call("shell", code=script)]]) as h:
                run_id = await h.runtime.start(self.AGENT, "hang", tenant="default")
                await until(alive)
                await h.runtime.cancel(run_id, tenant="default")
                state = await h.runtime.wait(run_id, tenant="default")
                assert state.status == "cancelled"
                await until(lambda: not alive())

        run(check())

    def test_a_sandbox_that_is_not_there_is_told_to_the_model(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

        async def check() -> None:
            async with harness(tmp_path, [[call("python", code="1")], ["sorry"]]) as h:
                state = await h.work(self.AGENT)
                results = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolReturned)]
                assert "there is no bwrap" in results[0].content

        run(check())


async def until(happens: Callable[[], bool]) -> None:
    """Returns once it is so; fails after ten seconds."""
    for _ in range(200):
        if await asyncio.to_thread(happens):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen in time")


def read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_groups_of_version_two_are_made_where_limits_are_passed_on(tmp_path: pathlib.Path) -> None:
    inner = tmp_path / "user.slice" / "ours.service"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    for place, passed_on in ((tmp_path, "memory pids"), (inner.parent, "memory pids"), (inner, "")):
        (place / "cgroup.subtree_control").write_text(passed_on)
    own = tmp_path / "own"
    own.write_text("0::/user.slice/ours.service\n")

    async def check() -> None:
        async with cgroup(1 << 20, 5, root=tmp_path, own=own) as joins:
            (group,) = [pathlib.Path(join).parent for join in joins]
            assert group.parent == inner.parent
        assert not group.exists()
        (inner.parent / "cgroup.subtree_control").write_text("cpu")
        (tmp_path / "cgroup.subtree_control").write_text("cpu")
        async with cgroup(1 << 20, 5, root=tmp_path, own=own) as joins:
            assert joins == ()

    run(check())
