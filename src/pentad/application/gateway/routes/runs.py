"""Agent runs: start, list, show, follow, explain, cancel, resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.agent.events import Record
from pentad.agent.loading import agent_from
from pentad.agent.rows import check_status
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.files import names_file
from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body, check_free_form
from pentad.application.gateway.context import run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.request_options import options_of
from pentad.application.gateway.runmetrics import RunMetrics
from pentad.application.gateway.schemas.runs import (
    AgentList,
    ApprovalRequest,
    ForkRequest,
    RunList,
    RunObject,
    RunPrompts,
    RunRequest,
)
from pentad.application.gateway.translate.runs import (
    RecordFrames,
    agent_card,
    run_explanation,
    run_line,
    run_object,
    run_prompt,
)
from pentad.errors import Forbidden, InvalidRequest, NotFound
from pentad.execution.hints import remaining_steps
from pentad.types import Objective

MAX_LIST = 1000


class Runs:
    """The handlers. Every run belongs to the tenant that started it; others get 404."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._body = Body(RunRequest)
        self._approvals = Body(ApprovalRequest)
        self._forks = Body(ForkRequest)
        self._metrics = RunMetrics(gateway.metrics.registry)
        self._record_frames = RecordFrames()

    def routes(self) -> list[Route]:
        """The resource and its verbs."""
        one = "/v1/runs/{run_id}"
        return [
            Route("/v1/agents", self.agents, methods=["GET"]),
            Route("/v1/runs", self.start, methods=["POST"]),
            Route("/v1/runs", self.list, methods=["GET"]),
            Route(one, self.show, methods=["GET"]),
            Route(f"{one}/events", self.events, methods=["GET"]),
            Route(f"{one}/explain", self.explain, methods=["GET"]),
            Route(f"{one}/prompts", self.prompts, methods=["GET"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
            Route(f"{one}/resume", self.resume, methods=["POST"]),
            Route(f"{one}/fork", self.fork, methods=["POST"]),
            Route(f"{one}/approvals/{{approval_id}}", self.approve, methods=["POST"]),
        ]

    async def agents(self, _: HttpRequest) -> Response:
        """The agents that can be started by name, as their files are now."""
        entries = await asyncio.to_thread(self._runtime.agents.entries)
        return json_response(AgentList(data=[agent_card(entry) for entry in entries]))

    async def start(self, http: HttpRequest) -> Response:
        """Starts a run and answers at once; follow its events."""
        exchange = exchange_of(http)
        wire = await self._body.read(http, self._gateway.settings)
        named = wire.agent if isinstance(wire.agent, str) else wire.agent.get("name")
        classes = self._gateway.settings.service_classes
        options = options_of(wire, http.headers, exchange, classes, agent=named)
        context = run_context(options)
        if context.run_id is not None or context.parent is not None:
            exchange.notices.append("run_id and parent are of the run itself, which chooses them")
        agent = wire.agent if isinstance(wire.agent, str) else _described(wire.agent)
        reading = partial(self._gateway.media_reader(exchange.tenant).content, wire.goal, "goal")
        goal, media = await self._gateway.translating(exchange, reading)
        run_id = await self._runtime.start(
            agent,
            goal,
            media=media,
            model=wire.model,
            tenant=exchange.tenant,
            objective=context.objective if context.objective != Objective() else None,
            budget=context.budget,
            data_label=context.data_label,
            priority=self._gateway.priority_within(exchange.tenant, options.priority or 0),
            steps_behind=remaining_steps(context),
        )
        self._observe(run_id, exchange.tenant)
        return json_response(await self._show(run_id, exchange.tenant), 201)

    async def list(self, http: HttpRequest) -> Response:
        """The caller's runs, newest first."""
        limit = _number(http, "limit", 100, most=MAX_LIST)
        status = http.query_params.get("status")
        check_status(status)
        rows = await asyncio.to_thread(
            self._runtime.list, tenant=exchange_of(http).tenant, status=status, limit=limit
        )
        return json_response(RunList(data=[run_line(row) for row in rows]))

    async def show(self, http: HttpRequest) -> Response:
        """One run."""
        return json_response(await self._show(_run_id(http), exchange_of(http).tenant))

    async def events(self, http: HttpRequest) -> Response:
        """The run's events as they happen, from Last-Event-ID (or `after`) on, until it ends.

        204 when there is nothing more to come, which stops a browser's EventSource.
        """
        exchange, run_id = exchange_of(http), _run_id(http)
        after = _number(http, "after", 0, header="last-event-id", most=2**53)
        followers = self._gateway.load.followers
        if not followers.fits(exchange.tenant):  # before the journal is read
            followers.refuse(exchange.tenant)
        state = await asyncio.to_thread(self._runtime.show, run_id, tenant=exchange.tenant)
        if state.ended and after >= state.sequence:
            return Response(status_code=204)
        after = min(after, state.sequence)
        records = self._runtime.events(run_id, after, tenant=exchange.tenant)
        return self._gateway.events(self._frames(records, followers.hold(exchange.tenant)), exchange)

    async def explain(self, http: HttpRequest) -> Response:
        """Where the run's time went, by layer."""
        made = await asyncio.to_thread(self._runtime.explain, _run_id(http), tenant=exchange_of(http).tenant)
        return json_response(run_explanation(made))

    async def prompts(self, http: HttpRequest) -> Response:
        """What each model call was asked, word for word, as far as it is retained."""
        made = await asyncio.to_thread(self._runtime.prompts, _run_id(http), tenant=exchange_of(http).tenant)
        return json_response(RunPrompts(data=[run_prompt(prompt) for prompt in made]))

    async def cancel(self, http: HttpRequest) -> Response:
        """Ends a run; answers when it has ended."""
        run_id, tenant = _run_id(http), exchange_of(http).tenant
        await self._runtime.cancel(run_id, tenant=tenant)
        return json_response(await self._show(run_id, tenant))

    async def resume(self, http: HttpRequest) -> Response:
        """Takes up a run that was interrupted."""
        run_id, tenant = _run_id(http), exchange_of(http).tenant
        await self._runtime.resume(run_id, tenant=tenant)
        self._observe(run_id, tenant)
        return json_response(await self._show(run_id, tenant), 202)

    async def fork(self, http: HttpRequest) -> Response:
        """Starts a run that has done what this one had before a step."""
        run_id, tenant = _run_id(http), exchange_of(http).tenant
        wire = await self._forks.read(http, self._gateway.settings)
        made = await self._runtime.fork(run_id, wire.step, goal=wire.goal, model=wire.model, tenant=tenant)
        self._observe(made, tenant)
        return json_response(await self._show(made, tenant), 201)

    async def approve(self, http: HttpRequest) -> Response:
        """Tells a waiting run what a person decided."""
        run_id, tenant = _run_id(http), exchange_of(http).tenant
        wire = await self._approvals.read(http, self._gateway.settings)
        if wire.input is not None:
            check_free_form(wire.input, "input")
        await self._runtime.answer(
            run_id,
            http.path_params["approval_id"],
            approved=wire.approve,
            note=wire.note,
            content=wire.input,
            tenant=tenant,
        )
        return json_response(await self._show(run_id, tenant))

    @property
    def _runtime(self) -> AgentRuntime:
        runtime = self._gateway.services.agents
        if runtime is None:
            raise NotFound("this server runs no agents", hint="start one with pentad serve")
        return runtime

    async def _frames(
        self, records: AsyncGenerator[Record, None], place: AbstractContextManager[None]
    ) -> AsyncGenerator[bytes, None]:
        with place:
            async with aclosing(records) as stream:
                async for record in stream:
                    yield self._record_frames.of(record)

    async def _show(self, run_id: str, tenant: str) -> RunObject:
        def read() -> RunObject:
            state = self._runtime.show(run_id, tenant=tenant)
            return run_object(state, () if state.ended else self._runtime.pending(run_id, tenant=tenant))

        return await asyncio.to_thread(read)

    def _observe(self, run_id: str, tenant: str) -> None:
        state = self._runtime.show(run_id, tenant=tenant)
        known = state.spec.name in self._runtime.agents.names()
        records = self._runtime.events(run_id, max(0, state.sequence - 1), tenant=tenant, patient=True)
        name = state.spec.name if known else "inline"
        tools = frozenset(state.spec.tools if known else ())
        self._gateway.background(self._metrics.follow(records, name, tools))


def _described(data: dict[str, Any]) -> AgentSpec:
    check_free_form(data, "agent")
    spec = agent_from(data)
    _check_sent(spec, "agent")
    return spec


def _check_sent(spec: AgentSpec, where: str) -> None:
    """Raises Forbidden for what an agent, or a member of its team, may bring only from a file here."""
    usual, filed = AgentSpec(name=spec.name), ("mcp_servers", "tool_options", "sandbox", "guides")
    for name in [name for name in filed if getattr(spec, name) != getattr(usual, name)]:
        raise Forbidden(
            f"an agent sent over HTTP may not bring {name}",
            hint="declare the agent in a file on the server (agents, --agents) and start it by name",
            param=f"{where}.{name}",
        )
    files = [tool for tool in spec.tools if names_file(tool)]
    if files:
        raise Forbidden(
            f"an agent sent over HTTP may not bring the Python file of {files[0][:200]!r}",
            hint="declare the agent in a file on the server (agents, --agents) and start it by name",
            param=f"{where}.tools",
        )
    for name, member in spec.agents.items():
        _check_sent(member, f"{where}.agents.{name}")


def _run_id(http: HttpRequest) -> str:
    run_id: str = http.path_params["run_id"]
    return run_id[:100]


def _number(http: HttpRequest, name: str, default: int, *, most: int, header: str | None = None) -> int:
    text = (http.headers.get(header) if header else None) or http.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise InvalidRequest(f"{name} is {text[:32]!r}; it must be 0 to {most}", param=name)
    return int(text)
