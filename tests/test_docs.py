"""What the documentation shows is run: doctests, and the Python blocks of README and tutorials in order."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

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


def test_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    used = set(re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.M))
    assert used <= targets
    assert {"demo", "test"} <= used


def test_comments_cite_lines_that_the_numbered_page_has():
    numbers = re.compile(r"(?<![\w)\]])\((\d{1,2}[a-d]?)\)")
    there = set(numbers.findall((ROOT / "docs" / "algorithm.md").read_text()))
    assert {str(number) for number in range(1, 13)} <= there
    cited = {}
    for path in sorted((ROOT / "src" / "pisa_ray" / "algorithm").glob("*.py")):
        text = path.read_text()
        cited[path.name] = set(numbers.findall(text))
        assert cited[path.name] <= there, path.name
        assert not re.search(r"algorithm (section )?\d", text), path.name
    assert cited["rules.py"] >= {"3", "4", "5", "6", "7a", "7b", "7c", "7d", "8", "9", "10"}
