"""The faults that `make mutants` seeds: each can still be made, and none is taken for caught that is not."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import mutants
import pytest
from mutants import FAILED, HERE, PASSED, ROOT, Mutant, listed

MUTANTS = listed()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutants_text_is_there_once_and_what_takes_its_place_is_python(mutant):
    compile(mutant.of((ROOT / mutant.path).read_text()), mutant.path, "exec")
    assert mutant.old != mutant.new
    assert mutant.breaks


@pytest.mark.parametrize("test", sorted({test for mutant in MUTANTS for test in mutant.tests}))
def test_the_tests_named_beside_mutants_are_there(test):
    path, _, case = test.partition("::")
    assert (ROOT / path).exists()
    assert not case or f"def {case}(" in (ROOT / path).read_text()


def test_there_are_many_in_all_packages():
    assert len(MUTANTS) >= 45
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    folders = {path.name for path in (ROOT / "src" / "pisa_ray").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert {mutant.file.split("/")[0] for mutant in MUTANTS} == folders - {"models"}


ONE = Mutant("a fault", "errors.py", "a promise", "class ConfigError", "class ConfigErrors", ("tests/test_a.py",))


@pytest.mark.parametrize("text", ["", "class ConfigError: ...\nclass ConfigError: ..."])
def test_a_text_that_is_not_there_once_is_refused(text):
    with pytest.raises(ValueError, match=r"'a fault' . times, not once"):
        ONE.of(text)


@pytest.mark.parametrize(
    ("answers", "options", "status", "said"),
    [
        ([(FAILED, ["t::a"])], [], 0, "1 of 1 caught, by 1 tests"),
        ([(PASSED, []), (FAILED, ["t::b"])], [], 0, "t::b"),  # not where it was expected
        ([(PASSED, []), (PASSED, [])], [], 1, "SURVIVED"),
        ([(PASSED, [])], ["--hints"], 1, "SURVIVED"),
        ([(None, [])], [], 1, "no end within"),
        ([(2, ["tests/test_a.py"])], [], 1, "pytest ended with status 2"),  # it could not be imported
        ([(FAILED, ["t::fails anyhow"])], [], 1, "t::fails anyhow fails without a fault, too"),
    ],
)
def test_only_a_test_that_fails_for_the_fault_has_caught_it(monkeypatch, capsys, answers, options, status, said):
    left = list(answers)

    def answered(tree, marked, arguments, seconds):
        (tree.parent / "log").write_text("the last words")
        if "class ConfigErrors" in (tree / ONE.path).read_text():
            return left.pop(0)
        failed = [test for test in arguments if "anyhow" in test]
        return FAILED if failed else PASSED, failed

    @contextmanager
    def copied():
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "tree" / ONE.path
            target.parent.mkdir(parents=True)
            target.write_text("class ConfigError(Exception): ...")
            yield Path(folder) / "tree"

    monkeypatch.setattr(mutants, "listed", lambda: [ONE])
    monkeypatch.setattr(mutants, "copied", copied)
    monkeypatch.setattr(mutants, "pytest", answered)
    assert mutants.main(options) == status
    assert said in capsys.readouterr().out
    assert not left


def test_the_words_say_which(capsys):
    assert mutants.main(["--list", "lock not taken"]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    assert mutants.main(["no such fault"]) == 2


def test_a_copy_has_what_git_tracks_and_nothing_else():
    with mutants.copied() as tree:
        assert (tree / "src" / "pisa_ray" / "__init__.py").exists()
        assert (tree / HERE.name / "conftest.py").exists()
        assert not (tree / ".git").exists()
        assert not list((tree / "tests").rglob("__pycache__"))
