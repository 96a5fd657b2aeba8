"""Verbs of a cluster that Ray keeps together: up, down, status, drain, upgrade."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pentad.application.cli.options import (
    AGENTS,
    COMMON,
    ENGINE,
    MODELS,
    SERVER,
    TELEMETRY,
    settings_of,
    with_settings,
)
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest, Unavailable, UnknownName

if TYPE_CHECKING:
    from pentad.application.config import Settings
    from pentad.execution.device import Cluster
    from pentad.resource.ray_hosts.cluster import RayHosts

_MODULE: Final = "pentad.application.worker"
_MOVE_S: Final = 60.0
"""For what runs on a drained host to end."""
ClusterFile = Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="Devices and links in YAML.")]
Address = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT", help="Of Ray's head.", envvar="RAY_ADDRESS")
]


def register(app: typer.Typer) -> None:
    panel = "Machines"
    for verb in (up, down, status, drain, upgrade):
        app.command(verb.__name__, rich_help_panel=panel)(verb)


@with_settings(COMMON, SERVER, MODELS, AGENTS, ENGINE, TELEMETRY)
def up(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    file: ClusterFile,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="In the store of every host.")],
    key_file: Annotated[
        str, typer.Option("--key-file", metavar="FILE", help="The key that all hosts have, at this path.")
    ],
    address: Address = "auto",
    strategy: Annotated[
        str, typer.Option("--strategy", help="Placement strategy, by name.")
    ] = "data-parallel",
) -> None:
    """Serve a model whose engine runs on a host of a cluster, and goes on at another one when that is lost.

    Ray knows the hosts; this process is the gateway. Prompts and tokens travel over links of our own.
    """
    from pentad.application.cli.server import serve_forever
    from pentad.application.parallel import read_key
    from pentad.resource.cluster_file import read_cluster
    from pentad.resource.ray_hosts.cluster import RayHosts
    from pentad.resource.ray_hosts.starter import RemoteStarter

    settings = settings_of(flags | {"models": [model]}, config)
    key = read_key(key_file)
    order = _placed(model, read_cluster(file), strategy, settings)
    hosts = RayHosts(order, address)
    try:
        hosts.take_down(undo=True)
        starter = RemoteStarter(
            hosts,
            _MODULE,
            key=key,
            key_file=str(pathlib.Path(key_file).resolve()),
            down=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        try:
            serve_forever(_reached(settings, hosts.address), starter)
        finally:
            starter.end()
    finally:
        hosts.close()


def _reached(settings: Settings, address: str) -> Settings:
    """Settings with which workers of other machines find this one, unless they say how already."""
    from pentad.choice import Choice

    if settings.engine.transport.name == "tcp":
        return settings
    engine = settings.engine.model_copy(update={"transport": Choice(name="tcp", options={"host": address})})
    return settings.model_copy(update={"engine": engine})


def _placed(model: str, cluster: Cluster, strategy: str, settings: Settings) -> list[str]:
    """Hosts that hold the model, those first that the plan gives most. Raises Infeasible, InvalidRequest."""
    from pentad.application.cli.planning import describe, form_for
    from pentad.choice import Choice, build
    from pentad.resource.placement.base import PlacementProblem

    described = describe(model, settings)
    plan = build("placement", Choice.of(strategy)).plan(
        PlacementProblem(
            spec=described.spec,
            cluster=cluster,
            form=form_for(described, cluster.devices[0], None, None),
        )
    )
    replicas = sorted(plan.replicas, key=lambda replica: -replica.weight)
    if any(len(replica.stages) > 1 for replica in replicas):
        raise InvalidRequest(
            f"the plan of {strategy!r} cuts {model!r} over several hosts",
            hint="set --strategy data-parallel, or serve with --parallel and start pentad rank on the others",
            param="strategy",
        )
    for replica in replicas:
        note(f"{model} may run on {replica.stages[0].device} ({replica.weight:.0%} of the cluster's speed)")
    host_of = {device.name: device.host or device.name for device in cluster.devices}
    return list(dict.fromkeys(host_of[replica.stages[0].device] for replica in replicas))


def down(file: ClusterFile, address: Address = "auto") -> None:
    """Have the gateway of a cluster finish and end, and all agents of its hosts."""
    hosts = _hosts(file, address)
    hosts.take_down()
    until_s = time.monotonic() + _MOVE_S
    while any(state.processes for state in hosts.states()) and time.monotonic() < until_s:
        time.sleep(0.5)
    for host in hosts.hosts:
        hosts.dismiss(host)
    note("the cluster is down; Ray itself ends with ray stop")


def status(file: ClusterFile, address: Address = "auto", json: JsonOption = False) -> None:
    """List the hosts of a cluster: who is there, drained, and runs what."""
    states = _hosts(file, address).states()
    if json:
        print_json([dataclasses.asdict(state) for state in states])
        return
    rows = [
        (
            state.host,
            "drained" if state.drained else "here" if state.joined else "away",
            state.address,
            state.version,
            len(state.processes),
        )
        for state in states
    ]
    print_table(("host", "state", "address", "version", "processes"), rows, empty="no hosts")


def drain(
    file: ClusterFile,
    host: Annotated[str, typer.Argument(metavar="HOST", help="As the cluster file names it.")],
    address: Address = "auto",
    undo: Annotated[bool, typer.Option("--undo", help="Let it be used again.")] = False,
) -> None:
    """Move what runs on a host to the others, in the middle of answers, and keep it free."""
    hosts = _hosts(file, address)
    if host not in hosts.hosts:
        raise UnknownName(
            f"the cluster has no host {host!r}", hint=f"known: {', '.join(hosts.hosts)}", param="host"
        )
    hosts.drain(host, undo=undo)
    if undo:
        note(f"{host} may be used again")
        return
    _await_free(hosts, host)
    note(f"nothing runs on {host}")


def upgrade(file: ClusterFile, address: Address = "auto") -> None:
    """Take up what is installed on the hosts now, one host after the other; answers go on meanwhile."""
    hosts = _hosts(file, address)
    for host in hosts.joined():
        drained = hosts.drained(host)
        hosts.drain(host)
        _await_free(hosts, host)
        hosts.dismiss(host)
        if not drained:
            hosts.drain(host, undo=True)
        note(f"{host} runs what is installed there from its next process on")


def _await_free(hosts: RayHosts, host: str) -> None:
    until_s = time.monotonic() + _MOVE_S
    while any(state.processes for state in hosts.states() if state.host == host):
        if time.monotonic() > until_s:
            raise Unavailable(
                f"processes still run on {host!r} after {_MOVE_S:g} s",
                hint="see that the gateway, pentad up, runs",
            )
        time.sleep(0.5)


def _hosts(file: pathlib.Path, address: str) -> RayHosts:
    from pentad.resource.cluster_file import read_cluster
    from pentad.resource.ray_hosts.cluster import RayHosts

    names = dict.fromkeys(device.host or device.name for device in read_cluster(file).devices)
    return RayHosts(list(names), address)
