"""Bars of rates, of agents' successes and of certificates, where matplotlib is installed (extra `bench`)."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pentad.errors import Incompatible

if TYPE_CHECKING:
    from pentad.agent.evaluation.summary import Summary
    from pentad.application.comparison import Comparison


def require_plotting() -> None:
    """Raises Incompatible with the command that installs matplotlib, before anything is measured."""
    if importlib.util.find_spec("matplotlib") is None:
        raise Incompatible(
            "--plot needs matplotlib, which is not installed",
            hint="pip install 'pentad[bench]'",
            param="plot",
        )


def plot_rates(results: Sequence[dict[str, Any]], file: pathlib.Path) -> None:
    """Writes one panel for the prefill and one per batch; the suffix of `file` chooses the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [line for line in results if "absent" not in line]
    batches = list(shown[0]["decode_tokens_per_s"])
    figure = Figure(figsize=(3 * (1 + len(batches)), 0.5 * len(shown) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    names = [line["engine"] for line in shown]
    for i, panel in enumerate(figure.subplots(1, 1 + len(batches), sharey=True, squeeze=False)[0]):
        rates = [
            line["prefill_tokens_per_s"] if i == 0 else line["decode_tokens_per_s"].get(batches[i - 1], 0)
            for line in shown
        ]
        bars = panel.barh(names, rates, color=["#2166ac"] + ["#b0b0b0"] * (len(shown) - 1))
        panel.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        panel.set_title("prefill" if i == 0 else f"decode, batch {batches[i - 1]}", fontsize=9)
        panel.set_xlabel("tokens/s", fontsize=8)
        panel.margins(x=0.2)
    figure.axes[0].invert_yaxis()
    figure.savefig(file)


def plot_curves(
    curves: Mapping[str, Sequence[Sequence[float]]], best_single: float, file: pathlib.Path
) -> None:
    """Writes one line of quality over cost per router; the suffix of `file` chooses the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for name, points in curves.items():
        costs, qualities = zip(*sorted((cost, quality) for cost, quality in points), strict=True)
        panel.plot(costs, qualities, label=name)
    panel.axhline(best_single, color="#b0b0b0", linestyle="--", label="best single")
    panel.set_xlabel("cost of an answer")
    panel.set_ylabel("share of right answers")
    panel.legend(fontsize=8)
    figure.savefig(file)


def plot_successes(lines: Sequence[Summary], file: pathlib.Path) -> None:
    """Writes one bar per contender with the interval of its success rate; the suffix chooses the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 * len(lines) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    names = [f"{line.model}\n{line.planner}, {line.coordinator}" for line in lines]
    rates = [100 * line.success_rate for line in lines]
    below = [100 * (line.success_rate - line.success_interval[0]) for line in lines]
    above = [100 * (line.success_interval[1] - line.success_rate) for line in lines]
    panel.barh(range(len(lines)), rates, xerr=[below, above], color="#2166ac", ecolor="#404040", capsize=3)
    panel.set_yticks(range(len(lines)), names, fontsize=8)
    panel.set_xlim(0, 100)
    panel.set_xlabel("cases solved, %, with the 95% interval", fontsize=8)
    panel.set_title(lines[0].suite, fontsize=9)
    panel.invert_yaxis()
    figure.savefig(file)


def plot_comparison(found: Comparison, file: pathlib.Path) -> None:
    """Writes one panel per metric with both values and their intervals; the suffix chooses the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, max(1, len(found.lines)))
    rows = -(-len(found.lines) // columns) or 1
    figure = Figure(figsize=(3 * columns, 1.7 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, line in zip(panels, found.lines, strict=False):
        values = (line.first, line.second)
        bounds = [
            bound or (value, value)
            for value, bound in zip(values, (line.first_interval, line.second_interval), strict=True)
        ]
        below = [max(0.0, value - low) for value, (low, _) in zip(values, bounds, strict=True)]
        above = [max(0.0, high - value) for value, (_, high) in zip(values, bounds, strict=True)]
        panel.barh(
            (found.first, found.second),
            values,
            xerr=[below, above],
            color=("#2166ac", "#b0b0b0"),
            ecolor="#404040",
            capsize=3,
        )
        panel.set_title(f"{line.metric}{f' ({line.unit})' if line.unit else ''}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.invert_yaxis()
    for panel in list(figure.axes)[len(found.lines) :]:
        panel.set_visible(False)
    figure.savefig(file)
