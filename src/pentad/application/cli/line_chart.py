"""A chart of lines as one SVG file: no scripts, no fonts of its own, and it reads in the dark as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 44, 62
_COLOURS = ("#2a6fdb", "#d1495b", "#2e8b57", "#b8860b", "#7b4fb5", "#008b8b", "#8c564b", "#6b7280")
_DASHES = ("", "7 4", "2 3")
_TICKS = 5


def line_chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """The chart of at least one line of at least one point, both axes from 0.

    Lines beyond eight take the colours again, dashed.
    """
    points = [point for line in lines.values() for point in line]
    x_most, y_most = (_ceiling(max(point[axis] for point in points)) for axis in (0, 1))
    height = _HEIGHT + 18 * len(lines)

    def x(value: float) -> float:
        return _LEFT + value / x_most * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / y_most * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 24, title, "start", bold=True),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 16, x_label, "middle"),
        f'<g transform="rotate(-90 18 {_HEIGHT / 2})">{_text(18, _HEIGHT / 2, y_label, "middle")}</g>',
    ]
    for step in range(_TICKS + 1):
        across, up = x_most * step / _TICKS, y_most * step / _TICKS
        parts += [
            f'<path d="M{_LEFT} {y(up):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
            _text(_LEFT - 8, y(up) + 4, f"{up:g}", "end"),
            _text(x(across), _HEIGHT - _BOTTOM + 20, f"{across:g}", "middle"),
        ]
    for i, (name, line) in enumerate(lines.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]
        path = "M" + " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in line)
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        below = _HEIGHT + 18 * i
        parts += [
            f'<path d="{path}" fill="none" {style}/>',
            f'<path d="M{_LEFT} {below - 4}h28" {style}/>',
            _text(_LEFT + 36, below, name, "start"),
        ]
    return "\n".join((*parts, "</svg>\n"))


def cumulative(values: Sequence[float], most_points: int = 200) -> list[tuple[float, float]]:
    """The line of which share of the values is at most so large; of many values, evenly spread ones."""
    ordered = sorted(values)
    count = len(ordered)
    picked = sorted({round(i * (count - 1) / (most_points - 1)) for i in range(most_points)}) if count else []
    return [(0.0, 0.0), *((ordered[i], (i + 1) / count) for i in picked)]


def _ceiling(value: float) -> float:
    """The next round number, for the end of an axis."""
    if value <= 0:
        return 1.0
    unit = float(10 ** math.floor(math.log10(value)))
    return next(
        step * unit for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * unit >= value * (1 - 1e-9)
    )


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222"{weight}>{escape(words)}</text>'
