"""Write the tables of keys and kinds in docs/, between their markers, from the fields of options and their docstrings.

With --check nothing is written, and the exit status is 1 if a page is not up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from pisa_ray.cli.comparison import Comparison
from pisa_ray.cli.keys import Line, lines
from pisa_ray.cli.search import Domain, Tuning
from pisa_ray.fields import annotated, free, inline, key_of, members
from pisa_ray.kinds import Kind
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config

DOCS = Path(__file__).resolve().parents[1] / "docs"
LITERAL = re.compile(r"""(`[^`]*`|(?<!\S)\{[^{}]*\}|["'][^\s"']+["']|\b(?:null|true|false|auto)\b)""")
QUOTES = "`'\""
MARKED = re.compile(r"(<!-- (keys|kinds): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


#: A class of options, what its keys begin with, and the keys of its file that a resume may change.
Section = tuple[Any, str, Collection[str]]


def sections() -> dict[str, Section]:
    """Return the sections that the pages must have, by the names of their classes."""
    found: dict[str, Section] = {}
    files: dict[Any, Collection[str]] = dict.fromkeys((Comparison, Tuning, Domain), ())
    for cls, may in (dict.fromkeys(Config.__bases__, free(Config)) | files).items():
        for one, prefix in ((cls, ""), *below(cls, "")):
            found.setdefault(one.__name__, (one, prefix, may))
    return found


def below(cls: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    """Yield the sections and the families that values of a class of options are, and those within them."""
    by_key = [*cls.beside.items(), *((key_of(name, hint), hint) for name, hint in annotated(cls).items())]
    for key, hint in by_key:
        if (group := inline(hint)) is not None:
            yield from below(group, prefix)
            continue
        for member in members(hint):
            if not (isinstance(member, type) and issubclass(member, Options)):
                continue
            if not issubclass(member, Kind) or "family" in vars(member):
                yield member, f"{prefix}{key}."
                for one in ours(member).values() if issubclass(member, Kind) else (member,):
                    yield from below(one, f"{prefix}{key}.")


def ours(family: type[Kind]) -> dict[str, Any]:
    """Return this library's classes of a family by kind, relatives side by side."""
    known = {kind: cls for kind, cls in family.known().items() if cls.__module__.startswith("pisa_ray.")}
    return dict(sorted(known.items(), key=lambda item: [base.__name__ for base in reversed(item[1].__mro__)]))


def table_of_kinds(family: type[Kind]) -> str:
    """Return a table of the first lines of the docstrings."""
    return table(
        "kind", "what", rows=((f"`{kind}`", cell(cls.__doc__.partition("\n")[0])) for kind, cls in ours(family).items())
    )


def table_of_keys(cls: Any, prefix: str, may: Collection[str]) -> str:
    """Return a table of the keys of a section, or of those of all kinds of a family."""
    if not issubclass(cls, Kind):
        return table("key", "default", "values", "meaning", rows=(row(line, may) for line in lines(cls, prefix)))
    kinds, by_line = ours(cls), dict[Line, list[str]]()
    for kind, one in kinds.items():
        for line in lines(one, prefix):
            by_line.setdefault(line, []).append(kind)
    order = list(dict.fromkeys(line.key for line in by_line))
    rows = []
    for line, of in sorted(by_line.items(), key=lambda item: order.index(item[0].key)):
        key, *rest = row(line, may)
        rows.append((key, "all" if len(of) == len(kinds) else ", ".join(f"`{kind}`" for kind in of), *rest))
    return table("key", "kinds", "default", "values", "meaning", rows=rows)


def row(line: Line, may: Collection[str]) -> tuple[str, ...]:
    """Return the cells of a key, with a mark if a resume may change it or the section that it is in.

    Raises:
        ValueError: If no docstring says what it means.
    """
    if not line.meaning:
        raise ValueError(f"{line.key} has no sentence in the docstring of its class")
    mark = r" \*" * any(line.key == key or line.key.startswith(f"{key}.") for key in may)
    default = line.default if line.default in ("required", "none") else f"`{line.default}`"
    return f"`{line.key}`{mark}", default, cell(line.values), cell(line.meaning)


def table(*head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    first, *others = (f"| {' | '.join(cells)} |\n" for cells in (head, *rows))
    return "".join((first, "|", "---|" * len(head), "\n", *others))


def cell(text: str) -> str:
    """Return text for a table: literals as code, and what Markdown would take for marks as it is."""
    parts = LITERAL.split(text)
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    parts[1::2] = [f"`{part.strip(QUOTES)}`" for part in parts[1::2]]
    return "".join(parts).replace("|", r"\|")


def rewritten(pages: dict[Path, str]) -> dict[Path, str]:
    """Return pages with new tables.

    Raises:
        KeyError: If a marker names no class of options.
        ValueError: If a class has no table.
    """
    known, found = sections(), set()

    def made(match: re.Match[str]) -> str:
        begin, what, name, end = match.groups()
        found.add((what, name))
        return begin + (table_of_kinds(known[name][0]) if what == "kinds" else table_of_keys(*known[name])) + end

    new = {page: MARKED.sub(made, text) for page, text in pages.items()}
    wanted = {("keys", name) for name in known}
    wanted |= {("kinds", name) for name, (cls, _, _) in known.items() if issubclass(cls, Kind)}
    if lacking := [f"<!-- {what}: {name} -->" for what, name in sorted(wanted - found)]:
        raise ValueError(f"no page has {', '.join(lacking)}")
    return new


def main() -> int:
    """Rewrite the pages, or with --check only look; return the exit status."""
    old = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    stale = {page: text for page, text in rewritten(old).items() if text != old[page]}
    check = "--check" in sys.argv[1:]
    for page, text in stale.items():
        print(f"{page} {'is not up to date: run python tools/option_tables.py' if check else 'is rewritten'}.")
        if not check:
            page.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
