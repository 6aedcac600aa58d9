"""Below the command line sentences speak of Python's arguments; the command line puts them in its own words."""

import ast
import re
from pathlib import Path

import pytest
from every import FAMILIES

import pisa_ray
from pisa_ray.cli.words import spoken

PACKAGE = Path(pisa_ray.__file__).parent
OPTIONS = "resume|out|overwrite|set|quiet|trust|data"
KEYS = (
    r"checkpoint\.(every|keep|best_by|order|storage)|stop\.(seconds|test_accuracy)|model\.(factory|kind|weights|args)"
)
#: Kinds that are words of English, too, or part of the command's name or of an example of a file.
WORDS = {"clip", "iid", "median", "noise", "pisa", "shape"}
KINDS = "|".join(kind for family in FAMILIES.values() for kind in family.known() if kind not in WORDS)
FOREIGN = re.compile(
    rf"--({OPTIONS})\b|\b(cpus|gpus)_per_worker|worker_labels|: (true|false)\b|partition\.(kind|distort\b)|"
    rf"asynchronous\.replay|ray\.address|\b({KEYS})\b|\b({KINDS})\b"
)


def sentences(path: Path):
    """Texts with a space in a module that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in docs
        ):
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path",
    # A ModelSection is what a file says of a model, in Python, too.
    [path for path in sorted(PACKAGE.rglob("*.py")) if not {"cli", "model.py"} & {*path.relative_to(PACKAGE).parts}],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_sentence_of_the_library_uses_words_of_the_command_line(path):
    assert [(line, text) for line, text in sentences(path) if FOREIGN.search(text)] == []


@pytest.mark.parametrize(
    ("said", "spoken_"),
    [
        (
            "a holds a run already: use resume=True to go on with it.",
            "a holds a run already: use --resume to go on with it.",
        ),
        (
            "the run directory a cannot be written: use another run_config.",
            "the run directory a cannot be written: use another --out.",
        ),
        ("scaling_config has at most 2 workers, but pin_to", "workers is 2, but pin_to"),
        ("use the same, or set exact=False to go on", "use the same, or set exact: false to go on"),
        ("checkpoint_score_attribute is 'loss', but", "checkpoint.best_by is 'loss', but"),
        ("Trapezoid.warmup is 2.0, but", "sigma_schedule.warmup is 2.0, but"),
        ("partition.distortion is Rotate, but", "partition.distort.kind is rotate, but"),
        ("partition.distortion.shards has 4, but", "partition.distort.shards has 4, but"),
        ("use PISA, SISA, SISAD, NSISA or MIFA, or leave", "use pisa, sisa, sisa_d, nsisa or mifa, or leave"),
        ("use IID, QuantitySkew or ByColumn, or integer", "use iid, quantity or by_column, or integer"),
        ("Asynchronous.replay is x.jsonl, but", "asynchronous.replay is x.jsonl, but"),
        ("stop_seconds is 0, but", "stop.seconds is 0, but"),
        ("a whole number of at least 1 or None.", "a whole number of at least 1 or null."),
        ("column 'SISA' of /data/SISA/IID.parquet", "column 'SISA' of /data/SISA/IID.parquet"),
        ("SISA-run/run_config/x cannot be read", "SISA-run/run_config/x cannot be read"),
    ],
)
def test_the_command_line_speaks_its_own_words(said, spoken_):
    assert spoken(said) == spoken_
