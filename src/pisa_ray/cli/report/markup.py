"""The values for the templates of the pages. Only `Markup` is HTML: all other text is escaped by the template."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pisa_ray.cli.report.figures import DASHES, LINE_COLOURS

CODE = Markup("<code>{}</code>")
_KEY = Markup('<svg class="key" aria-hidden="true" viewBox="0 0 26 10"><path d="{}" style="{}"/></svg>')


class Table(NamedTuple):
    """A table: for each column its heading and the class of its cells ("name" and "row" are headings of the rows)."""

    caption: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A figure, with its title, its legend and its caption."""

    title: str
    keys: Sequence[Markup]
    svg: Markup
    caption: str


def render(template: str, **values: object) -> str:
    """Return a whole page, which needs no other file and no network.

    Args:
        template: The file of the template, below `cli`.
        values: The values, or functions, that the template names.
    """
    pages = Environment(
        loader=PackageLoader("pisa_ray.cli", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(line_key=line_key, **values)


def line_key(colour: int | None, dash: int = 0) -> Markup:
    """Return a short piece of a line as in the figures; without a colour it stands for all runs."""
    paint = "var(--soft)" if colour is None else f"var(--c{colour % len(LINE_COLOURS)})"
    width = 2.5 if colour is None or colour < len(LINE_COLOURS) else 4.5
    dashes = f";stroke-dasharray:{','.join(str(2 * d) for d in DASHES[dash])}" if dash else ""
    return _KEY.format("M0 5H26", f"stroke:{paint};stroke-width:{width};fill:none{dashes}")


def area_key(colour: str) -> Markup:
    """Return a box of a colour."""
    return _KEY.format("M6 0h14v10H6z", f"fill:{colour}")
