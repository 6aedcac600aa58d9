"""Draws the figures: curves over rounds or work, and the bars of a partition."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from pisa_ray.cli.report.svg import draw

# Okabe-Ito. Lines take a colour from the page, which lightens some of them in the dark; yellow is too pale for a line.
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Areas have one colour for light and dark, since many of them are drawn as a picture; slate stands for black.
_AREA_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"),
    *("#5d6470", "#b0b5bb", "#a6611a"),
)
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2.5), (1.2, 2), (6, 2, 1.2, 2))
_RASTER_BEYOND = 700  # more boxes than this take less space as a picture than as vector shapes
_MARKERS_UP_TO = 25  # the most points of a line that are marked
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """A curve that has been thinned.

    Attributes:
        points: (x, value) pairs, in order; x is a round, or another quantity that the axis names.
        colour: The index of its colour; indices beyond the palette begin again, in a heavier stroke.
        dash: The index of its dashes in `DASHES`.
        band: (x, smallest, largest) of the shaded area around it.
    """

    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0
    band: Sequence[tuple[float, float, float]] = ()


def label_colours(count: int) -> list[str]:
    """Return colours for so many labels: of the palette if it has enough, else of the viridis map."""
    if count <= len(_AREA_COLOURS):
        return list(_AREA_COLOURS[:count])
    colours = matplotlib.colormaps["viridis"]
    return [to_hex(colours(i / (count - 1))) for i in range(count)]


def thin(points: Sequence[tuple[float, float]], buckets: int = 180) -> list[tuple[float, float]]:
    """Thin a curve to what a screen can show, but keep the ends and each bucket's smallest and largest value."""
    if len(points) <= 2 * buckets:
        return list(points)
    keep = {0, len(points) - 1}
    for b in range(buckets):
        span = range(b * len(points) // buckets, (b + 1) * len(points) // buckets)
        keep.add(min(span, key=lambda i: points[i][1]))
        keep.add(max(span, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(keep)]


def draw_curves(
    lines: Sequence[Line],
    *,
    salt: str,
    description: str,
    log_beyond: float,
    percent: bool = False,
    x: str = "round",
    inches: tuple[float, float] = (4.5, 2.7),
) -> Markup:
    """Draw curves.

    Args:
        lines: The curves; at least one has a point.
        salt: Makes the ids of this figure unique within the page.
        description: A description of the figure for people who cannot see it.
        log_beyond: The ratio of the largest to the smallest value from which the y axis is logarithmic.
        percent: Whether the values are shares of one.
        x: The label of the horizontal axis.
        inches: The width and the height.

    Returns:
        An `<svg>` element. On a logarithmic axis values that are not positive are left out.
    """
    values = [y for line in lines for _, y in line.points]
    values += [y for line in lines for _, *both in line.band for y in both]
    positive = [y for y in values if y > 0]
    log = bool(positive) and min(values) >= 0 and max(positive) > log_beyond * min(positive)

    def paint(axes: Axes) -> None:
        for line in lines:
            points = [p for p in line.points if p[1] > 0] if log else line.points
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=LINE_COLOURS[line.colour % len(LINE_COLOURS)],
                linewidth=1.6 if line.colour < len(LINE_COLOURS) else 2.8,
                dashes=DASHES[line.dash] or (None, None),
                marker="o" if len(points) <= _MARKERS_UP_TO else None,
                markersize=3.2,
            )
            if line.band:
                shaded = [p for p in line.band if p[1] > 0] if log else line.band
                xs, least, most = (list(column) for column in zip(*shaded, strict=True))
                colour = LINE_COLOURS[line.colour % len(LINE_COLOURS)]
                axes.fill_between(xs, least, most, color=colour, alpha=0.15, linewidth=0)
        if log:
            _log_axis(axes, min(positive), max(positive))
        elif percent and max(abs(v) for v in values) <= 10:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, 0.0) if min(values) >= 0 else low, min(high, 1.005) if max(values) <= 1 else high)
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v)))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=all(v == int(v) for v in values)))
            if max(values) - min(values) <= 1e-9 * max(abs(v) for v in values):
                middle, half = values[0], abs(values[0]) * 0.5 or 1.0
                axes.set_ylim(middle - half, middle + half)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel(x)

    return draw(paint, inches, salt, description, {c: f"var(--c{i})" for i, c in enumerate(LINE_COLOURS)})


def draw_partition(shards: Sequence[Sequence[int]], *, salt: str, description: str) -> Markup:
    """Draw a stacked bar per shard.

    Args:
        shards: The counts of each shard by label, in one order for all shards.
        salt: Makes the ids of this figure unique within the page.
        description: A description of the figure for people who cannot see it.
    """
    colours = label_colours(len(shards[0]))
    half = 0.4 if len(shards) <= 200 else 0.5
    boxes, fills, tallest = [], [], 1
    for x, counts in enumerate(shards):
        base = 0
        for count, colour in zip(counts, colours, strict=False):
            if count > 0:
                top = base + count
                boxes.append(((x - half, base), (x + half, base), (x + half, top), (x - half, top)))
                fills.append(colour)
                base = top
        tallest = max(tallest, base)

    def paint(axes: Axes) -> None:
        raster = len(boxes) > _RASTER_BEYOND
        axes.add_collection(
            PolyCollection(boxes, facecolors=fills, linewidths=0, antialiaseds=not raster, rasterized=raster)
        )
        axes.set_xlim(-0.6, len(shards) - 0.4)
        axes.set_ylim(0, tallest * 1.04)
        axes.xaxis.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("shard")
        axes.set_ylabel("rows", labelpad=1)

    return draw(paint, (9.6, 3.0), salt, description, {})


def _tick(value: float) -> str:
    """Return a short tick label: plain digits if they are short, else a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        return text.replace("-", "\N{MINUS SIGN}")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    digits = f"{value / 10.0**exponent:.3g}".replace("-", "\N{MINUS SIGN}")
    power = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
    return power if digits == "1" else f"{digits}\N{MIDDLE DOT}{power}"


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0) if decades > 0.7 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
