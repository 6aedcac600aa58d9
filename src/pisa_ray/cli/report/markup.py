"""The pieces of HTML that more than one part of the page is made of."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from pisa_ray.cli.report.figures import DASHES, LINE_COLOURS

OPEN_ROWS = 20  # a list with more entries starts closed
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - pisa_ray report</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(title: str, body: str) -> str:
    """A whole page, which needs no other file and no network; both are HTML already."""
    style = files("pisa_ray.cli.report").joinpath("style.css").read_text(encoding="utf-8")
    return _PAGE.format(title=title, style=style, body=body)


def table(caption: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls, and starts closed where it is long.

    Args:
        caption: Plain text.
        columns: Each one's heading and the class of its cells; "name" and "row" are headings of the rows.
        rows: Cells; they and the headings are HTML already.
    """
    head = "".join(f'<th scope="col"{_class(kind if kind == "n" else "")}>{name}</th>' for name, kind in columns)
    kinds = [kind for _, kind in columns]
    body = "\n".join(f"<tr>{''.join(map(_cell, cells, kinds))}</tr>" for cells in rows)
    long = len(rows) > OPEN_ROWS
    whole = (
        f'<div class="scroll{" tall" if long else ""}" tabindex="0" role="group" aria-label="{caption}">'
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )
    return details(f"{caption}: {len(rows):,} rows", whole) if long else whole


def _cell(content: str, kind: str) -> str:
    tag, scope = ("th", ' scope="row"') if kind in {"name", "row"} else ("td", "")
    return f"<{tag}{scope}{_class(kind)}>{content}</{tag}>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def details(summary: str, content: str) -> str:
    """Content that opens at a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def legend(items: Sequence[str]) -> str:
    """The key of a figure, or nothing."""
    return f'<ul class="legend">{"".join(f"<li>{item}</li>" for item in items)}</ul>' if items else ""


def line_key(colour: int | None, dash: int = 0) -> str:
    """A short piece of a line, as the figures draw it; without a colour it stands for every run's."""
    paint = "var(--soft)" if colour is None else f"var(--c{colour % len(LINE_COLOURS)})"
    width = 2.5 if colour is None or colour < len(LINE_COLOURS) else 4.5
    dashes = f";stroke-dasharray:{','.join(str(2 * d) for d in DASHES[dash])}" if dash else ""
    return _key("M0 5H26", f"stroke:{paint};stroke-width:{width};fill:none{dashes}")


def area_key(colour: str) -> str:
    """A box of a colour."""
    return _key("M6 0h14v10H6z", f"fill:{colour}")


def _key(path: str, style: str) -> str:
    return f'<svg class="key" aria-hidden="true" viewBox="0 0 26 10"><path d="{path}" style="{style}"/></svg>'
