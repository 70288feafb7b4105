"""One picture as SVG: lines over labelled places, two panels, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from bench.report import number

_WIDTH, _HEIGHT = 960, 340
_TOP, _FOOT, _LEFT, _PANEL, _GAP = 48, 70, 60, 390, 60
_COLOURS = ("#3b6fb6", "#b98a1d", "#5c8a4c", "#b6503b", "#7d5ba6", "#2f8f8f", "#a6577d", "#6b7c93")
_STYLE = """
    .page { fill: #ffffff; stroke: #d5dbe3 } .name { fill: #13233a; font-weight: 600 }
    .small { fill: #3a4a5f; font-size: 12px } .grid { stroke: #e3e8ee } .first { stroke: #13233a; fill: #13233a }
    .bad { stroke: #c0271b; fill: none; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #12181f; stroke: #33404f } .name { fill: #e8eef5 } .small { fill: #b4c0cd }
      .grid { stroke: #28323d } .first { stroke: #e8eef5; fill: #e8eef5 } .bad { stroke: #ff7b6e }
    }"""


@dataclass(frozen=True, slots=True)
class Line:
    """values: for each place its (low, middle, high), None where nothing was measured."""

    name: str
    values: Sequence[tuple[float, float, float] | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """log: decades instead of a scale from 0."""

    title: str
    lines: Sequence[Line]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to heights."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def y(self, value: float) -> float:
        """Of the picture, downwards."""
        share = (_place(value, self.log) - self.low) / (self.high - self.low)
        return _HEIGHT - _FOOT - share * (_HEIGHT - _FOOT - _TOP)


def _place(value: float, log: bool) -> float:
    return log10(max(value, 1e-6)) if log else value


def scale_of(panel: Panel) -> Scale:
    """The scale that holds all values: whole decades, or from 0 in round steps."""
    values = [value for line in panel.lines for found in line.values if found for value in found] or [1.0]
    if panel.log:
        low = floor(log10(max(min(values), 1e-6)))
        high = max(low + 1, ceil(log10(max(max(values), 1e-6))))
        return Scale(low, high, True, tuple(10.0**power for power in range(low, high + 1)))
    step = round_step((max(values) or 1.0) / 5)
    steps = max(1, ceil(max(values) / step - 1e-9))
    return Scale(0, step * steps, False, tuple(step * place for place in range(steps + 1)))


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def picture(title: str, places: Sequence[str], below: str, panels: Sequence[Panel], broken: Sequence[int]) -> str:
    """The whole SVG; broken: numbers of the places that did not hold, marked with a cross."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}">',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="page" x="1" y="1" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="10"/>',
    ]
    for which, panel in enumerate(panels):
        left = _LEFT + which * (_PANEL + _GAP)
        xs = [left + _PANEL * (place + 0.5) / len(places) for place in range(len(places))]
        parts += _frame(panel, left, scale_of(panel), below, dict(zip(xs, places, strict=True)))
        parts += _lines(panel, xs, scale_of(panel), broken)
        parts += _legend(panel, left)
    return "\n".join([*parts, "</svg>", ""])


def _frame(panel: Panel, left: float, scale: Scale, below: str, places: dict[float, str]) -> list[str]:
    parts = [_text("name", left, 24, panel.title, "start")]
    for tick in scale.ticks:
        y = scale.y(tick)
        parts.append(f'  <path class="grid" d="M{left:.0f} {y:.1f} h{_PANEL}"/>')
        parts.append(_text("small", left - 8, y + 4, number(round(tick, 6)), "end"))
    parts += [_text("small", x, _HEIGHT - _FOOT + 18, label, "middle") for x, label in places.items()]
    return [*parts, _text("small", left + _PANEL / 2, _HEIGHT - _FOOT + 36, below, "middle")]


def _lines(panel: Panel, xs: Sequence[float], scale: Scale, broken: Sequence[int]) -> list[str]:
    parts = []
    for index, line in enumerate(panel.lines):
        found = [(x, value) for x, value in zip(xs, line.values, strict=True) if value]
        path = " L".join(f"{x:.1f} {scale.y(value[1]):.1f}" for x, value in found)
        parts.append(f'  <path {_paint(index, "none")} stroke-width="2" d="M{path}"/>' if found else "")
        for x, (low, middle, high) in found:
            parts.append(f'  <path {_paint(index)} d="M{x:.1f} {scale.y(low):.1f} V{scale.y(high):.1f}"/>')
            parts.append(f'  <circle {_paint(index)} cx="{x:.1f}" cy="{scale.y(middle):.1f}" r="3"/>')
        crosses = [(xs[place], line.values[place]) for place in broken] if not index else []
        parts += [_cross(x, scale.y(value[1])) for x, value in crosses if value]
    return [part for part in parts if part]


def _cross(x: float, y: float) -> str:
    return f'  <path class="bad" d="M{x - 7:.1f} {y - 7:.1f} l14 14 m0 -14 l-14 14"/>'


def _paint(index: int, fill: str = "") -> str:
    """The first line is the page's own ink, the others have colours."""
    if not index:
        return 'class="first" style="fill: none"' if fill else 'class="first"'
    colour = _COLOURS[(index - 1) % len(_COLOURS)]
    return f'stroke="{colour}" fill="{fill or colour}"'


def _legend(panel: Panel, left: float) -> list[str]:
    parts, x, y = [], left, _HEIGHT - 14
    for index, line in enumerate(panel.lines):
        parts.append(f'  <circle {_paint(index)} cx="{x + 4:.0f}" cy="{y - 4}" r="4"/>')
        parts.append(_text("small", x + 12, y, line.name, "start"))
        x += 24 + 6.6 * len(line.name)
    return parts


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    return f'  <text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
