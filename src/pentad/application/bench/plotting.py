"""Bars of several engines' rates, where matplotlib is installed (extra `bench`)."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

from pentad.errors import Incompatible


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
