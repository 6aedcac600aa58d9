"""Makes inline SVG of Matplotlib drawings, which follows the page's light or dark colours.

The user's texts are never drawn; names and labels are in the page around the figures, where they are escaped.
"""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK, _GRID = "#010203", "#040506"  # stand-ins that become var(--ink) and var(--line)

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.6,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify": False,
}


def draw(
    paint: Callable[[Axes], None], inches: tuple[float, float], salt: str, description: str, colours: Mapping[str, str]
) -> Markup:
    """Draw with `paint` on new axes, and return the figure as an `<svg>` element for an HTML page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_RC, "svg.hashsalt": salt}):
        figure = Figure(figsize=inches)
        # Fixed margins in inches: a layout engine takes as long as the drawing, and equal axes line up on the page.
        width, height = inches
        axes = figure.add_axes((0.62 / width, 0.43 / height, 1 - 0.72 / width, 1 - 0.53 / height))
        axes.tick_params(length=0)
        paint(axes)
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            dpi=200,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return _for_html(buffer.getvalue(), description, {_INK: "var(--ink)", _GRID: "var(--line)", **colours})


def _for_html(svg: str, description: str, colours: Mapping[str, str]) -> Markup:
    """Reduce a stand-alone SVG file to what an HTML page needs, and let the page set the colours."""
    box = re.search(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<defs>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(
        r"font-family:[^;\"]*;?\s*|font: ([\d.]+px)[^;\"]*", lambda m: f"font-size: {m[1]}" if m[1] else "", body
    )
    shorter = re.compile(r"(\.\d\d)\d+")
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: shorter.sub(r"\1", m[0]), body)
    for drawn, css in colours.items():
        body = body.replace(drawn, css)
    body = re.sub(r"\n\s*", "\n", body)
    page = Markup('<svg role="img" aria-label="{}" viewBox="{}">{}</svg>')
    return page.format(description, box[1] if box else "", Markup(body))  # noqa: S704  (matplotlib escapes)
