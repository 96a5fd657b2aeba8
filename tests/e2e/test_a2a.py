"""A2A 1.0: the SDK's client against our server, over both bindings; tasks are runs and outlive processes."""

from __future__ import annotations

import asyncio
import json
import pathlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import new_data_part, new_text_part
from a2a.types import a2a_pb2 as wire
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from agent_support import call, run, spec
from gateway_support import Live, eventually, live, model_service, scripted
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.functions import tool
from pentad.application.gateway.fetching import Fetcher
from pentad.application.gateway.routes import a2a as routes
from pentad.application.services import Services
from pentad.testing.backends import ScriptedBackend

SUM = call("calculator", expression="2 + 3")
STATE = wire.TaskState
BINDINGS = pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])


@asynccontextmanager
async def client(
    server: Live, *, binding: str = "JSONRPC", key: str = "", streaming: bool = False
) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        card = await A2ACardResolver(http, f"{server.url}/a2a/helper").get_agent_card()
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], streaming=streaming)
        yield ClientFactory(config).create(card)


def helper(**fields: Any) -> AgentSpec:
    return spec(**{"name": "helper", "description": "Helps.", "tools": ("calculator",), **fields})


def asking(*parts: Any, task: str = "", context: str = "", message: str = "m1", **options: Any) -> Any:
    said = wire.Message(
        message_id=message, role=wire.Role.ROLE_USER, parts=parts, task_id=task, context_id=context
    )
    return wire.SendMessageRequest(message=said, configuration=wire.SendMessageConfiguration(**options))


async def sent(made: Client, request: Any) -> list[Any]:
    """What the client tells of a message, in order."""
    return [event async for event in made.send_message(request)]


async def task_of(made: Client, request: Any) -> Any:
    return (await sent(made, request))[-1].task


@pytest.mark.row("tool-a2a", "mechanism")
@BINDINGS
def test_a_message_becomes_a_task_and_its_answer_an_artifact(binding: str) -> None:
    async def scenario() -> None:
        with scripted([SUM], ["It is 5."], agents={"helper": helper()}) as server:
            async with client(server, binding=binding) as made:
                task = await task_of(made, asking(new_text_part("add")))
                assert task.status.state == STATE.TASK_STATE_COMPLETED
                assert task.artifacts[0].parts[0].text == "It is 5."
                assert task.history[0].parts[0].text == "add"
                again = await made.get_task(wire.GetTaskRequest(id=task.id))
                assert again == task
                # A message whose answer was lost may be sent again: it is the same task.
                assert (await task_of(made, asking(new_text_part("add")))).id == task.id
                page = await made.list_tasks(wire.ListTasksRequest(include_artifacts=True))
                assert [one.id for one in page.tasks] == [task.id]
                assert page.total_size == 1

    run(scenario())


@pytest.mark.row("tool-a2a", "mechanism")
@BINDINGS
def test_a_stream_tells_the_task_the_answer_and_the_end(binding: str) -> None:
    async def scenario() -> None:
        with scripted([SUM], ["It is 5."], agents={"helper": helper()}) as server:
            async with httpx.AsyncClient(timeout=30) as http:
                card = await A2ACardResolver(http, f"{server.url}/a2a/helper").get_agent_card()
                made = ClientFactory(
                    ClientConfig(httpx_client=http, supported_protocol_bindings=[binding])
                ).create(card)
                told = await sent(made, asking(new_text_part("add")))
                kinds = [event.WhichOneof("payload") for event in told]
                assert kinds == ["task", "artifact_update", "status_update"]
                assert told[1].artifact_update.artifact.parts[0].text == "It is 5."
                assert told[2].status_update.status.state == STATE.TASK_STATE_COMPLETED
                with pytest.raises(UnsupportedOperationError):
                    async for _ in made.subscribe(wire.SubscribeToTaskRequest(id=told[0].task.id)):
                        pass

    run(scenario())


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (new_text_part("Yes."), "ok"),
        (new_text_part("no, use another way"), "denied"),
        (new_data_part({"approve": True}), "ok"),
        (new_data_part({"approve": "yes"}), "denied"),
    ],
)
def test_what_a_run_asks_is_a_task_that_requires_input(part: Any, status: str) -> None:
    async def scenario() -> None:
        with scripted([SUM], ["Done."], agents={"helper": helper(ask=("*",))}) as server:
            async with client(server) as made:
                task = await task_of(made, asking(new_text_part("add")))
                assert task.status.state == STATE.TASK_STATE_INPUT_REQUIRED
                assert task.status.message.parts[0].text.startswith("May calculator be called")
                done = await task_of(made, asking(part, task=task.id, message="m2"))
                assert done.status.state == STATE.TASK_STATE_COMPLETED
                runtime = server.gateway.services.agents
                assert runtime is not None
                assert runtime.show(task.id).exchanges[0].results[0].status == status
                with pytest.raises(UnsupportedOperationError, match="has ended"):
                    await sent(made, asking(part, task=task.id, message="m3"))

    run(scenario())


def test_a_context_is_a_conversation() -> None:
    async def scenario() -> None:
        with scripted(["Ann."], ["You are Ann."], agents={"helper": helper(tools=())}) as server:
            async with client(server) as made:
                first = await task_of(made, asking(new_text_part("I am Ann")))
                context = first.context_id
                second = await task_of(
                    made, asking(new_text_part("Who am I?"), context=context, message="m2")
                )
                assert second.context_id == context
                assert second.id != first.id
                assert server.backend is not None
                said = [message.content for message in server.backend.requests[-1].messages]
                assert any("I am Ann" in str(one) for one in said)
                page = await made.list_tasks(wire.ListTasksRequest(context_id=context))
                assert [one.id for one in page.tasks] == [second.id, first.id]
                assert (await made.list_tasks(wire.ListTasksRequest(context_id="other"))).total_size == 0

    run(scenario())


@BINDINGS
def test_cancelling_a_task_cancels_the_run(binding: str) -> None:
    @tool(effects="none")
    async def wait_long() -> str:
        """Waits."""
        await asyncio.sleep(60)
        return "late"

    async def scenario() -> None:
        with scripted([call("wait_long")], agents={"helper": helper(tools=("wait_long",))}) as server:
            runtime = server.gateway.services.agents
            assert runtime is not None
            runtime.toolbox.add(wait_long)
            async with client(server, binding=binding) as made:
                task = await task_of(made, asking(new_text_part("wait"), return_immediately=True))
                assert task.status.state == STATE.TASK_STATE_WORKING
                ended = await made.cancel_task(wire.CancelTaskRequest(id=task.id))
                assert ended.status.state == STATE.TASK_STATE_CANCELED
                assert runtime.show(task.id).status == "cancelled"
                with pytest.raises(TaskNotCancelableError):
                    await made.cancel_task(wire.CancelTaskRequest(id=task.id))

    run(scenario())


@BINDINGS
def test_mistakes_are_errors_of_the_protocol(binding: str) -> None:
    async def scenario() -> None:
        with scripted(["x"], agents={"helper": helper()}) as server:
            async with client(server, binding=binding) as made:
                cases: list[tuple[type[A2AError], Any]] = [
                    (ContentTypeNotSupportedError, made.send_message(asking(wire.Part(raw=b"x")))),
                    (ContentTypeNotSupportedError, made.send_message(asking(wire.Part(url="http://a/b")))),
                    (InvalidParamsError, made.send_message(asking(new_text_part(" ")))),
                    (TaskNotFoundError, made.send_message(asking(new_text_part("a"), task="run_none"))),
                ]
                for kind, work in cases:
                    with pytest.raises(kind):
                        async for _ in work:
                            pass
                for method, request in (
                    (made.get_task, wire.GetTaskRequest(id="run_none")),
                    (made.cancel_task, wire.CancelTaskRequest(id="run_none")),
                ):
                    with pytest.raises(TaskNotFoundError):
                        await method(request)
            assert server.backend is not None
            assert server.backend.requests == []

    run(scenario())


def test_another_tenants_task_is_not_found() -> None:
    async def scenario() -> None:
        keys = ("ann:first", "bob:second")
        with scripted(["Hi."], agents={"helper": helper()}, api_keys=keys) as server:
            async with client(server, key="first") as ann, client(server, key="second") as bob:
                task = await task_of(ann, asking(new_text_part("hello")))
                for work in (
                    bob.get_task(wire.GetTaskRequest(id=task.id)),
                    bob.cancel_task(wire.CancelTaskRequest(id=task.id)),
                    bob.list_task_push_notification_configs(
                        wire.ListTaskPushNotificationConfigsRequest(task_id=task.id)
                    ),
                ):
                    with pytest.raises(TaskNotFoundError):
                        await work
                assert (await bob.list_tasks(wire.ListTasksRequest())).total_size == 0
                assert (await ann.list_tasks(wire.ListTasksRequest())).total_size == 1
            async with httpx.AsyncClient(base_url=server.url) as http:
                path = "/.well-known/agent-card.json"
                card = (await http.get(path, headers={"x-api-key": "first"})).json()
                assert card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"] == "Bearer"
                assert (await http.get(path)).status_code == 401
                assert (await http.get("/a2a/helper/tasks")).status_code == 401

    run(scenario())


@pytest.mark.row("tool-a2a", "mechanism")
def test_a_task_outlives_its_server(tmp_path: pathlib.Path) -> None:
    agents = {"helper": helper(ask=("*",))}

    @contextmanager
    def serving(*turns: Any) -> Iterator[Live]:
        models = model_service(ScriptedBackend(list(turns)))
        journal = Journal(tmp_path / "journal.db")
        runtime = AgentRuntime(models, journal, agents=agents)
        try:
            with live(Services(models=models, agents=runtime)) as server:
                yield server
        finally:
            journal.close()

    async def begin() -> Any:
        with serving([SUM]) as server:
            async with client(server) as made:
                return await task_of(made, asking(new_text_part("add")))

    async def go_on(task: Any) -> None:
        with serving(["It is 5."]) as server:
            async with client(server) as made:
                assert await made.get_task(wire.GetTaskRequest(id=task.id)) == task
                done = await task_of(made, asking(new_text_part("yes"), task=task.id, message="m2"))
                assert done.status.state == STATE.TASK_STATE_COMPLETED
                assert done.artifacts[0].parts[0].text == "It is 5."
                assert done.context_id == task.context_id

    task = run(begin())
    assert task.status.state == STATE.TASK_STATE_INPUT_REQUIRED
    run(go_on(task))


@contextmanager
def webhook() -> Iterator[tuple[int, list[tuple[dict[str, str], Any]]]]:
    """A listener on this machine: its port, and the headers and bodies that it was sent."""
    heard: list[tuple[dict[str, str], Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
        thread.join(5)


def test_those_who_asked_for_it_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with webhook() as (port, heard):
            poster = Fetcher(
                ("*", f"hook.example:{port}"), resolve=lambda *_: ["127.0.0.1"], allowed=lambda _: True
            )
            monkeypatch.setattr(routes, "make_poster", lambda: poster)
            with scripted([SUM], ["Done."], agents={"helper": helper(ask=("*",))}) as server:
                config = wire.TaskPushNotificationConfig(
                    url=f"http://hook.example:{port}/a",
                    token="secret-token",
                    authentication=wire.AuthenticationInfo(scheme="Bearer", credentials="abc"),
                )
                async with client(server) as made:
                    request = asking(new_text_part("add"), task_push_notification_config=config)
                    task = await task_of(made, request)
                    listed = await made.list_task_push_notification_configs(
                        wire.ListTaskPushNotificationConfigsRequest(task_id=task.id)
                    )
                    assert [one.url for one in listed.configs] == [config.url]
                    await task_of(made, asking(new_text_part("yes"), task=task.id, message="m2"))

                def told() -> list[str]:
                    return [body["statusUpdate"]["status"]["state"] for _, body in heard]

                await asyncio.to_thread(eventually, lambda: "TASK_STATE_COMPLETED" in told())
                assert told()[0] == "TASK_STATE_INPUT_REQUIRED"
                assert heard[0][0]["authorization"] == "Bearer abc"
                assert heard[0][0]["x-a2a-notification-token"] == "secret-token"

    run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a",
        "http://[::1]/a",
        "http://169.254.169.254/latest",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://ok.example\\@127.0.0.1/",
        "http://user@127.0.0.1/",
        "file:///etc/passwd",
        "http://localhost:9/",
    ],
)
def test_nobody_is_told_in_a_private_network(url: str) -> None:
    async def scenario() -> None:
        with scripted(["Hi."], agents={"helper": helper()}) as server:
            async with client(server) as made:
                task = await task_of(made, asking(new_text_part("hello")))
                with pytest.raises(InvalidParamsError):
                    await made.create_task_push_notification_config(
                        wire.TaskPushNotificationConfig(task_id=task.id, url=url)
                    )

    run(scenario())
