"""What the documentation shows is run: doctests, and the Python blocks of README and tutorials in order."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import option_tables
import pytest

import pisa_ray

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages(pisa_ray.__path__, "pisa_ray.")])
def test_doctests(module):
    if module.endswith("__main__"):
        return
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "docs"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(block, str(page), "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_exist(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_tables_of_keys_and_kinds_are_those_of_the_options():
    pages = {page: page.read_text() for page in PAGES}
    assert option_tables.rewritten(pages) == pages, "run python tools/option_tables.py"


def test_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    used = set(re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.M))
    assert used <= targets
    assert {"demo", "test"} <= used


def test_the_glossary_names_what_the_code_has():
    package = ROOT / "src" / "pisa_ray"
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))
    rows = re.findall(r"^\| (?!word|---)(.*) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert len({row.partition(" |")[0] for row in rows}) == len(rows) > 25
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row.rpartition("| ")[2]):
            found = (
                (package / name).exists() if "/" in name else all(re.search(rf"\b{n}\b", code) for n in name.split("."))
            )
            assert found, name


WALKS = (ROOT / "docs" / "architecture.md").read_text().partition("## Where to begin")[2].partition("## Layers")[0]
SOURCE = ROOT / "src" / "pisa_ray"


def named(text: str) -> list[str]:
    return re.findall(r"`([a-z_/]+\.py)`", text)


def test_the_files_of_the_reading_order_and_of_the_walks_exist():
    assert len(named(WALKS)) > 40
    assert [name for name in named(WALKS) if not (SOURCE / name).is_file()] == []


def test_sigma_is_named_by_the_files_of_its_walk_and_passed_on_by_those_between():
    walk = WALKS.partition("**A sigma,")[2].partition("**A death,")[0]
    assert [name for name in named(walk) if "sigma" not in (SOURCE / name).read_text()] == []
    between = [*SOURCE.glob("actors/*.py"), SOURCE / "engine" / "fleet.py", SOURCE / "engine" / "worker.py"]
    assert [path.name for path in between if "sigma" in path.read_text()] == []
