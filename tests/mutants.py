"""Small faults in the source, one at a time, each of which the fast suite must catch: `make mutants`.

They are in seeded/, by package and file. For each, the files that git tracks are copied to a temporary folder, one text
there is replaced, and the tests named beside it are run, until one fails; if none does, the rest of the fast suite. In
the end all tests that failed must pass on a copy without a fault: else they have caught nothing.

    python tests/mutants.py                     all of them; exit status 1 if one survives
    python tests/mutants.py --hints lock fence  those with these words in their names or files, by the tests beside them
"""

from __future__ import annotations

import argparse
import compileall
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

#: What the fast suite is, and what of the tests named beside mutants is run first.
FAST = "not slow and not cluster"
FIRST = f"{FAST} and not ray"

#: Seconds for the tests named beside a mutant, and for all the others: one that makes them hang is not caught.
HINTED, REST = 600, 3600

#: pytest's own exit statuses.
PASSED, FAILED = 0, 1

_running: set[int] = set()

#: Processes that begin with what takes long to import.
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(
    ["hypothesis", "pyarrow.parquet", "pytest", "ray", "safetensors.torch", "torch.func", "yaml"]
)


@dataclass(frozen=True)
class Mutant:
    """The source with one fault.

    Attributes:
        name: The fault, in words.
        file: Where, below src/pisa_ray.
        breaks: The promise that it breaks.
        old: What is replaced; it is there once.
        new: By what.
        tests: Which should see it, without Ray: files, folders, or cases as pytest names them.
    """

    name: str
    file: str
    breaks: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file, from the root."""
        return f"src/pisa_ray/{self.file}"

    def of(self, text: str) -> str:
        """The file's text with the fault in it.

        Raises:
            ValueError: What is to be replaced is not there, or not once.
        """
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.path} has {self.old!r} of the mutant {self.name!r} {times} times, not once")
        return text.replace(self.old, self.new)


def listed() -> list[Mutant]:
    """All there are."""
    return [
        Mutant(
            name, f"{table.stem}/{file}", **(fields | {"tests": tuple(f"tests/{t}" for t in fields["tests"].split())})
        )
        for table in sorted((HERE / "seeded").glob("*.yaml"))
        for file, mutants in yaml.safe_load(table.read_text(encoding="utf-8")).items()
        for name, fields in mutants.items()
    ]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        by: The test that caught it; None: it survived.
        seconds: What that took.
        trouble: Why pytest could not tell, if it could not.
    """

    by: str | None
    seconds: float
    trouble: str = ""


@contextmanager
def copied(root: Path = ROOT) -> Iterator[Path]:
    """A copy of the files that git tracks, compiled, in a folder of its own."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder) / "tree"
        for name in names.split("\0"):
            if name and (root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, tree / name)
        compileall.compile_dir(tree / "src", quiet=2)  # once, and not for each mutant
        yield tree


@contextmanager
def copied_again(tree: Path) -> Iterator[Path]:
    """A copy of a copy; in its folder is room for what tests leave."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as folder:
        yield Path(shutil.copytree(tree, Path(folder) / "tree"))


def pytest(tree: Path, marked: str, arguments: Sequence[str], seconds: float) -> tuple[int | None, list[str]]:
    """Run tests of a copy on its own source.

    Returns:
        pytest's exit status, None where it took too long, and the tests that failed.
    """
    shutil.rmtree(tree / ".pytest_cache", ignore_errors=True)
    process = _WARM.Process(target=_pytest, args=(tree, ["-m", marked, *arguments]))
    process.start()
    assert process.pid is not None
    _running.add(process.pid)
    process.join(seconds)
    status = process.exitcode
    _end(process.pid)
    process.join()
    failed = tree / ".pytest_cache" / "v" / "cache" / "lastfailed"
    return status, list(json.loads(failed.read_text())) if failed.exists() else []


def _pytest(tree: Path, arguments: Sequence[str]) -> None:
    """What a process does that is only there for that."""
    os.setsid()
    with (tree.parent / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(tree)
    sys.path.insert(0, str(tree / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tree / "src"), os.environ.get("PYTHONPATH")]))
    from pytest import main  # noqa: PT013

    sys.exit(main(["--basetemp", str(tree.parent / "tmp"), *arguments]))


def _end(process: int) -> None:
    """End a session of processes that was started here."""
    _running.discard(process)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def tried(mutant: Mutant, original: Path, *, hints_only: bool) -> Verdict:
    """Put a fault into a copy of the source and see who notices."""
    start = time.monotonic()
    with copied_again(original) as tree:
        source = tree / mutant.path
        try:
            source.write_text(mutant.of(source.read_text()))
        except ValueError as error:
            return Verdict(None, 0.0, str(error))
        steps = [(FIRST, mutant.tests, HINTED)]
        if not hints_only:
            steps.append((FAST, ["tests"], REST))
        for marked, tests, most in steps:
            status, failed = pytest(tree, marked, ["-x", *tests], most)
            seconds = time.monotonic() - start
            if status == FAILED and failed:
                return Verdict(failed[0], seconds)
            if status != PASSED:
                trouble = f"no end within {most} s" if status is None else f"pytest ended with status {status}"
                return Verdict(None, seconds, f"{trouble}: {_tail(tree.parent / 'log')}")
    return Verdict(None, time.monotonic() - start)


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").strip().split("\n")[-3:])


def unsound(tests: Sequence[str], original: Path) -> list[str]:
    """Of some tests those that fail without any fault."""
    if not tests:
        return []
    with copied_again(original) as tree:
        status, failed = pytest(tree, FAST, tests, REST)
        if status not in (PASSED, FAILED):
            raise RuntimeError(f"pytest ended with status {status}: {_tail(tree.parent / 'log')}")
        return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutants and print what became of them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Seed small faults and see whether the fast suite catches them.")
    parser.add_argument("words", nargs="*", help="only those that have one of these in their names or files")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at a time (default: 1)")
    parser.add_argument("--hints", action="store_true", help="only the tests named beside each, not the whole suite")
    parser.add_argument("--list", action="store_true", help="list them and do nothing")
    options = parser.parse_args(arguments)
    chosen = [m for m in listed() if not options.words or any(word in f"{m.file}: {m.name}" for word in options.words)]
    if not chosen:
        print(f"no mutant has {' or '.join(options.words)} in its name or file", file=sys.stderr)
        return 2
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name} ({mutant.file})\n    {mutant.breaks}")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the tests have it; torch looks when it is imported
    pool = ThreadPoolExecutor(options.jobs)
    try:
        with copied() as original:
            verdicts = pool.map(lambda mutant: tried(mutant, original, hints_only=options.hints), chosen)
            return report(chosen, verdicts, original)
    except KeyboardInterrupt:
        return 130
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_running):
            _end(process)


def report(chosen: Sequence[Mutant], verdicts: Iterable[Verdict], original: Path) -> int:
    """Print what becomes of mutants, look into what has caught them, and return the exit status."""
    survived, catchers = 0, dict[str, str]()
    width = max(len(mutant.name) for mutant in chosen)
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        print(f"{mutant.name:{width}}  {verdict.seconds:6.1f} s  {verdict.by or 'SURVIVED'}", flush=True)
        if verdict.trouble:
            print(f"    {verdict.trouble}")
        if verdict.by is None:
            survived += 1
        else:
            catchers[verdict.by] = mutant.name
    false = unsound(list(catchers), original)
    for test in false:
        print(f"{test} fails without a fault, too: it has not caught {catchers.get(test, 'anything')!r}")
    print(f"{len(chosen) - survived} of {len(chosen)} caught, by {len(catchers)} tests")
    return 1 if survived or false else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
