"""Charts as inline SVG; colours come from the style sheet of the page, so that they follow its dark mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from awc_balance.report.axis import Axis, axis
from awc_balance.report.markup import Markup, element, join

WIDTH, HEIGHT = 400.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 10.0, 40.0
_ROW = 46.0
COLOURS = 6
_DASHES = (None, "7 4", "2 3", "9 3 2 3")


class Style(NamedTuple):
    """How a line is drawn."""

    colour: int
    dash: str | None
    hollow: bool = False
    """Whether its dots are."""


class Series(NamedTuple):
    """A line through points (x, y); a nan leaves a gap. The band holds (x, low, high)."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    style: Style | None = None
    """None: that of its place among the lines."""


class Bar(NamedTuple):
    """A named value from 0 to 1."""

    name: str
    share: float
    style: int


class Estimate(NamedTuple):
    """A value and its interval."""

    value: float
    interval: tuple[float, float] | None


def styles(count: int) -> list[Style]:
    """Of lines that differ in colour and dashes."""
    return [Style(i % COLOURS, _DASHES[(i + i // COLOURS) % len(_DASHES)]) for i in range(count)]


def pairs(count: int) -> list[tuple[Style, Style]]:
    """Of pairs of lines in one colour: the first unbroken as long as colours last, the second dashed and hollow."""
    return [
        (Style(i % COLOURS, _DASHES[i // COLOURS % len(_DASHES)]), Style(i % COLOURS, "4 3", hollow=True))
        for i in range(count)
    ]


def lines(
    title: str,
    series: Sequence[Series],
    *,
    y_label: str,
    window: tuple[int, int] | None = None,
    around: Sequence[float] = (0.0,),
) -> Markup:
    """Lines over epochs, with bands; the epochs of the window are shaded.

    Args:
        title: Of the drawing.
        series: The lines.
        y_label: What their values are.
        window: Its first and last epoch.
        around: Values that are to be seen in any case; at the first of them there is a line across.
    """
    x = axis([p[0] for s in series for p in s.points] + list(window or ()), _LEFT, WIDTH - _RIGHT, whole=True)
    seen = [value for s in series for _, *values in (*s.points, *s.band) for value in values]
    y = axis([*around, *seen], HEIGHT - _BOTTOM, _TOP)
    parts = [_shade(x, window)] if window else []
    parts += [_grid(y), _level(y, around[0]), _epochs(x), _y_title(y_label)]
    styled = [(s, s.style or style) for s, style in zip(series, styles(len(series)), strict=True)]
    parts += [_band(s, style, x, y) for s, style in styled if s.band]
    parts += [_line(s, style, x, y) for s, style in styled]
    return _drawing(title, HEIGHT, parts)


def estimates(title: str, rows: Mapping[str, Sequence[Estimate]], *, x_label: str) -> Markup:
    """One row per name with a dot and an interval for each estimate: filled the first, hollow the second."""
    every = [estimate for row in rows.values() for estimate in row]
    ends = [value for estimate in every for value in (estimate.value, *(estimate.interval or ()))]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    x = axis([0.0, *ends], 14, WIDTH - 14)
    bottom = height - _BOTTOM
    parts = [_vertical(x, tick, bottom, "zero" if tick == 0 else "grid") for tick in x.ticks]
    parts += [_text(x.place(tick), bottom + 16, f"{tick:g}", "middle") for tick in x.ticks]
    parts.append(_text(WIDTH / 2, bottom + 34, x_label, "middle"))
    for number, (name, row) in enumerate(rows.items()):
        top = _TOP + _ROW * number
        parts.append(_text(4, top + 14, _short(name), "start", "name"))
        parts += [_estimate(estimate, x, top + 26 + 11 * place, place) for place, estimate in enumerate(row)]
    return _drawing(title, height, parts)


def bars(title: str, shares: Sequence[Bar]) -> Markup:
    """Horizontal bars of shares, each under its name."""
    high = max([bar.share for bar in shares] + [1e-9])
    parts = []
    for number, (name, share, style) in enumerate(shares):
        top = 34.0 * number
        parts.append(_text(4, top + 14, f"{_short(name)}: {100 * share:.3g} %", "start", "name"))
        width = (WIDTH - 8) * share / high
        parts.append(element("rect", x=4, y=top + 19, width=width, height=10, rx=2, class_=f"fill c{style % COLOURS}"))
    return _drawing(title, 34.0 * len(shares) + 4, parts)


def legend(names: Sequence[str], of_lines: Sequence[Style] | None = None) -> Markup:
    """What the lines are, in the order of the series."""
    items = []
    for name, style in zip(names, of_lines or styles(len(names)), strict=True):
        stroke = element("line", x1=0, y1=6, x2=30, y2=6, class_=f"line c{style.colour}", stroke_dasharray=style.dash)
        key = element("svg", stroke, width=30, height=12, viewBox="0 0 30 12", aria_hidden="true")
        items.append(element("li", key, " ", name))
    return element("ul", *items, class_="legend")


def _drawing(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    head = element("title", title)
    return element("svg", head, *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=title)


def _grid(y: Axis) -> Markup:
    drawn = []
    for tick in y.ticks:
        place = y.place(tick)
        drawn.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=place, y2=place, class_="grid"))
        drawn.append(_text(_LEFT - 5, place + 4, f"{tick:g}", "end"))
    return join(*drawn)


def _level(y: Axis, level: float) -> Markup:
    return element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y.place(level), y2=y.place(level), class_="zero")


def _epochs(x: Axis) -> Markup:
    ticks = [_text(x.place(tick), HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle") for tick in x.ticks]
    return join(*ticks, _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, "epoch", "middle"))


def _y_title(label: str) -> Markup:
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    return element(
        "text", label, x=14, y=middle, text_anchor="middle", transform=f"rotate(-90 14 {middle:g})", class_="label"
    )


def _shade(x: Axis, window: tuple[int, int]) -> Markup:
    low, high = (min(max(x.place(edge), x.start), x.end) for edge in (window[0] - 0.5, window[1] + 0.5))
    return element("rect", x=low, y=_TOP, width=high - low, height=HEIGHT - _BOTTOM - _TOP, class_="window")


def _line(series: Series, style: Style, x: Axis, y: Axis) -> Markup:
    pieces: list[list[str]] = [[]]
    for at, value in series.points:
        if isfinite(value):
            pieces[-1].append(f"{x.place(at):.1f} {y.place(value):.1f}")
        elif pieces[-1]:
            pieces.append([])
    path = " ".join(f"M{' L'.join(piece)}" for piece in pieces if len(piece) > 1)
    kind = "hollow" if style.hollow else "fill"
    dots = [
        element("circle", cx=x.place(at), cy=y.place(value), r=3, class_=f"{kind} c{style.colour}")
        for at, value in series.points
        if isfinite(value) and len(series.points) <= 30
    ]
    return join(element("path", d=path, class_=f"line c{style.colour}", stroke_dasharray=style.dash), *dots)


def _band(series: Series, style: Style, x: Axis, y: Axis) -> Markup:
    there = [f"{x.place(at):.1f} {y.place(high):.1f}" for at, _, high in series.band]
    back = [f"{x.place(at):.1f} {y.place(low):.1f}" for at, low, _ in reversed(series.band)]
    return element("path", d=f"M{' L'.join(there + back)} Z", class_=f"band c{style.colour}")


def _estimate(estimate: Estimate, x: Axis, y: float, style: int) -> Markup:
    drawn = []
    if estimate.interval is not None:
        low, high = (x.place(end) for end in estimate.interval)
        drawn.append(element("line", x1=low, x2=high, y1=y, y2=y, class_=f"line c{style}"))
        drawn += [element("line", x1=end, x2=end, y1=y - 4, y2=y + 4, class_=f"line c{style}") for end in (low, high)]
    kind = "hollow" if style else "fill"
    drawn.append(element("circle", cx=x.place(estimate.value), cy=y, r=4.5, class_=f"{kind} c{style}"))
    return join(*drawn)


def _vertical(x: Axis, value: float, bottom: float, kind: str) -> Markup:
    return element("line", x1=x.place(value), x2=x.place(value), y1=_TOP, y2=bottom, class_=kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def _short(name: str) -> str:
    """A name that fits into a drawing."""
    return name if len(name) <= 36 else f"{name[:17]}…{name[-18:]}"
