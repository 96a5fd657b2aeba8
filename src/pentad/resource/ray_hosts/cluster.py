"""RayHosts: the hosts of a cluster file as Ray knows them, what is asked of each, and their agents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pentad.errors import MissingExtra, Unavailable

_log = logging.getLogger(__name__)
NAMESPACE: Final = "pentad"
_ANSWER_S: Final = 10.0
_START_S: Final = 120.0
"""For an agent to be there: an interpreter and its imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """A host as it is now."""

    host: str
    joined: bool
    """Whether a node of Ray has its resource."""
    address: str = ""
    drained: bool = False
    version: str = ""
    """Of its agent; empty where there is none, or it does not answer."""
    processes: list[int] = field(default_factory=list)


class RayHosts:
    """Hosts are nodes that were started with `--resources '{"pentad_NAME": 1}'`.

    What is asked of a host (drained, down) stands in the key-value table of Ray's head: who serves and who
    commands need not know each other.

    Raises MissingExtra without the package, Unavailable where no cluster of Ray answers.
    """

    def __init__(self, hosts: Sequence[str], address: str) -> None:
        try:
            import ray
            from ray.experimental import internal_kv
        except ImportError:
            raise MissingExtra(
                "a cluster of several machines needs Ray", hint="install it: pip install 'pentad[ray]'"
            ) from None
        self.hosts = tuple(hosts)
        self._ray: Any = ray
        self._kv: Any = internal_kv
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Unavailable(
                f"no cluster of Ray answers at {address!r}: {str(error).splitlines()[0]}",
                hint="start Ray on the head, and set --address",
            ) from None
        self.address: str = ray.util.get_node_ip_address()
        """Of this machine, as the others reach it."""

    def joined(self) -> dict[str, str]:
        """Addresses of the hosts that are there."""
        found: dict[str, str] = {}
        for node in self._ray.nodes():
            if node["Alive"]:
                found |= {
                    h: node["NodeManagerAddress"] for h in self.hosts if _resource(h) in node["Resources"]
                }
        return {host: found[host] for host in self.hosts if host in found}

    def states(self) -> list[HostState]:
        """Of all hosts, in the order of the file."""
        joined, found = self.joined(), []
        for host in self.hosts:
            about = self._about(host) if host in joined else {}
            found.append(
                HostState(
                    host=host,
                    joined=host in joined,
                    address=joined.get(host, ""),
                    drained=self.drained(host),
                    **about,
                )
            )
        return found

    def _about(self, host: str) -> dict[str, Any]:
        try:
            agent = self._ray.get_actor(_actor(host))
            return dict(self.answer(agent.about.remote()))
        except (ValueError, Unavailable):
            return {}

    def agent(self, host: str) -> Any:
        """The host's agent; it is started where there is none. Raises Unavailable."""
        from pentad.resource.ray_hosts.agent import Agent

        made = self._ray.remote(Agent).options(
            name=_actor(host),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            resources={_resource(host): 0.01},
        )
        agent = made.remote()
        self.answer(agent.about.remote(), _START_S)
        return agent

    def answer(self, reference: Any, wait_s: float = _ANSWER_S) -> Any:
        """What an agent answers. Raises Unavailable where it is gone, or says nothing."""
        try:
            return self._ray.get(reference, timeout=wait_s)
        except self._ray.exceptions.RayError as error:
            raise Unavailable(
                f"a host does not answer: {type(error).__name__}", hint="see pentad status"
            ) from None

    def dismiss(self, host: str) -> None:
        """Ends the host's agent, and with it what it started; the next one runs what is installed by then."""
        try:
            self._ray.kill(self._ray.get_actor(_actor(host)))
        except ValueError:
            _log.info("host %s has no agent", host)

    def drained(self, host: str) -> bool:
        """Whether nothing shall run there."""
        return bool(self._kv._internal_kv_exists(_drain(host), namespace=NAMESPACE))

    def drain(self, host: str, *, undo: bool = False) -> None:
        """Has what runs there go on elsewhere, and nothing start there; or takes that back."""
        if undo:
            self._kv._internal_kv_del(_drain(host), namespace=NAMESPACE)
        else:
            self._kv._internal_kv_put(_drain(host), b"1", namespace=NAMESPACE)

    @property
    def down(self) -> bool:
        """Whether everything shall end."""
        return bool(self._kv._internal_kv_exists(b"down", namespace=NAMESPACE))

    def take_down(self, *, undo: bool = False) -> None:
        """Has whoever serves finish and end; or takes that back."""
        if undo:
            self._kv._internal_kv_del(b"down", namespace=NAMESPACE)
        else:
            self._kv._internal_kv_put(b"down", b"1", namespace=NAMESPACE)

    def close(self) -> None:
        """Leaves Ray; agents stay."""
        self._ray.shutdown()


def _resource(host: str) -> str:
    return f"pentad_{host}"


def _actor(host: str) -> str:
    return f"pentad-{host}"


def _drain(host: str) -> bytes:
    return f"drain:{host}".encode()
