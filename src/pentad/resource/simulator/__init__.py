"""Simulation: the real engine, scheduler and block pool on simulated devices and one virtual clock.

from pentad.resource.simulator import read_trace, simulate
report = simulate(read_trace("trace.csv", limit=1000), spec, profile, "sarathi")
report.to_dict()
"""

from pentad.resource.simulator.classes import in_classes
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.fleet import Fleet, Policies, simulate_fleet
from pentad.resource.simulator.fleet_report import EngineReport, FleetReport
from pentad.resource.simulator.links import LinkChange
from pentad.resource.simulator.loads import bursty, diurnal
from pentad.resource.simulator.mobility import moving
from pentad.resource.simulator.outages import Outage
from pentad.resource.simulator.replay import SimulationOptions, simulate
from pentad.resource.simulator.report import Distribution, RequestRecord, SimulationReport
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.simulator.sessions import SessionScale
from pentad.resource.simulator.sweep import Sweep, sweep
from pentad.resource.simulator.trace import TraceItem, agent_run, poisson, rescaled
from pentad.resource.simulator.trace_files import read_trace

__all__ = [
    "Distribution",
    "EngineReport",
    "Fleet",
    "FleetReport",
    "LinkChange",
    "Outage",
    "Policies",
    "RequestRecord",
    "SessionScale",
    "SimulatedRunner",
    "SimulationOptions",
    "SimulationReport",
    "Sweep",
    "TraceItem",
    "VirtualClock",
    "agent_run",
    "bursty",
    "diurnal",
    "in_classes",
    "moving",
    "poisson",
    "read_trace",
    "rescaled",
    "simulate",
    "simulate_fleet",
    "sweep",
]
