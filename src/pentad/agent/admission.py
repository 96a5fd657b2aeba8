"""Admission: what may begin or go on here: goals, models, agents, and how many runs at once."""

from __future__ import annotations

from contextlib import ExitStack

from pentad.agent.limits import RuntimeLimits
from pentad.agent.ports import ModelPort
from pentad.agent.resumption import generators
from pentad.agent.spec import AgentSpec
from pentad.agent.spec_check import check_strategies
from pentad.agent.toolset import Toolset
from pentad.errors import InvalidRequest, ModelNotFound, Unavailable
from pentad.resource.tenant_quotas import TenantQuotas


class Admission:
    """Checks before a run is begun, taken up or forked.

    Args:
        models, tools: what there is here.
        limits: how much at once.
    """

    def __init__(self, models: ModelPort, tools: Toolset, limits: RuntimeLimits) -> None:
        self._models = models
        self._tools = tools
        self._limits = limits
        self._shares = TenantQuotas(
            "runs at work",
            "server.max_runs",
            limit=limits.max_runs,
            tenants=limits.tenants,
            share=limits.tenant_share,
        )
        self.closing = False
        """Whether nothing may begin any more."""

    def model(self, name: str) -> str:
        """The name of a served model. Raises ModelNotFound."""
        known = generators(self._models)
        if name not in known:
            raise ModelNotFound(f"no model {name!r}", hint=f"served: {', '.join(known)}", param="model")
        return name

    def goal(self, goal: str) -> None:
        """Raises InvalidRequest for a goal that is empty or too long."""
        most = self._limits.max_goal_bytes
        if not goal.strip():
            raise InvalidRequest("the goal is empty", hint="say what the agent is to do", param="goal")
        if len(goal.encode("utf-8", "replace")) > most:
            raise InvalidRequest(
                f"the goal has more than {most} bytes",
                hint="put long texts into files that a tool reads",
                param="goal",
            )

    def agent(self, spec: AgentSpec) -> None:
        """Raises what keeps an agent, or a member of its team, from being run here.

        That is UnknownName for a strategy or a tool, InvalidRequest for options that do not fit.
        """
        check_strategies(spec)
        self._tools.check(spec)
        for member in spec.agents.values():
            self.agent(member)

    def fits(self, tenant: str) -> bool:
        """Whether the tenant may have one more run at work."""
        return self._shares.fits(tenant)

    def place(self, tenant: str) -> ExitStack:
        """A place for one more run of the tenant, given back on leaving unless the run keeps it.

        Sub-runs are within the place of the run that leads. Raises Overloaded, Unavailable.
        """
        if self.closing:
            raise Unavailable("the agent runtime is shutting down")
        place = ExitStack()
        place.enter_context(self._shares.hold(tenant))
        return place
