"""What the templates of the pages are given. Only `Markup` is HTML: all other text is escaped as it is put in."""

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
    """A figure, with what stands above and below it."""

    title: str
    keys: Sequence[Markup]
    svg: Markup
    caption: str


def render(template: str, **values: object) -> str:
    """A whole page, which needs no other file and no network.

    Args:
        template: Its file, below `cli`.
        values: What the template names; functions may be among them.
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
    """A short piece of a line, as the figures draw it; without a colour it stands for every run's."""
    paint = "var(--soft)" if colour is None else f"var(--c{colour % len(LINE_COLOURS)})"
    width = 2.5 if colour is None or colour < len(LINE_COLOURS) else 4.5
    dashes = f";stroke-dasharray:{','.join(str(2 * d) for d in DASHES[dash])}" if dash else ""
    return _KEY.format("M0 5H26", f"stroke:{paint};stroke-width:{width};fill:none{dashes}")


def area_key(colour: str) -> Markup:
    """A box of a colour."""
    return _KEY.format("M6 0h14v10H6z", f"fill:{colour}")
