"""Help and bad files are answered at once: nothing heavy is imported for them, and defaults stay the classes' own."""

import subprocess
import sys
from pathlib import Path

import pytest

import pisa_ray

HEAVY = "{'torch', 'ray', 'pandas', 'pyarrow'}"
#: Runs commands in this process, each with the exit status that it should have, and looks at what they imported.
COMMANDS = """
import sys
from pisa_ray.cli.main import main
for status, command in {commands}:
    try:
        found = main(command)
    except SystemExit as ended:
        found = ended.code
    assert found == status, command
    assert not {heavy} & set(sys.modules), (command, {heavy} & set(sys.modules))
"""
SMALLEST = "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp}\n"
COMPARE = (
    "base: {data: {dataset: digits}, model: {kind: %s}}\n"
    "algorithms: {a: {algorithm: {kind: sisa_d}}, b: {algorithm: {kind: fedavg%s}}}\n"
    "partitions: {iid: {kind: iid, shards: 2}}\n"
)
TUNE = (
    "base: {data: {dataset: digits, validation: 0.1}, partition: {kind: iid, shards: 2}, model: {kind: mlp}%s}\n"
    "space: {algorithm.kind: {choice: [sisa]}, algorithm.sigma: %s}\n"
)

TRAIN = {
    "unknown key": SMALLEST + "rouns: 5\n",
    "unknown key of a method": SMALLEST + "algorithm: {kind: nsisa, nesterof: true}\n",
    "unknown key of a baseline": SMALLEST + "algorithm: {kind: fedavg, lrr: 0.1}\n",
    "wrong type": SMALLEST + "rounds: many\n",
    "flag for a number": SMALLEST + "algorithm: {kind: sisa, sigma: true}\n",
    "wrong range": SMALLEST + "algorithm: {kind: sisa_d, beta: 1}\nsigma_schedule: {kind: geometric, gamma: 2}\n",
    "wrong range of a group": SMALLEST + "algorithm: {groups: {matrices: {kind: nsisa, mu: 2}, rest: sisa_d}}\n",
    "unknown kind": SMALLEST + "algorithm: {kind: adam}\n",
    "unknown model": SMALLEST.replace("mlp", "mlpp"),
    "unknown partition": SMALLEST.replace("iid", "idd"),
    "missing section": "data: {dataset: digits}\n",
    "no data": SMALLEST.replace("dataset: digits", "train: nowhere.parquet") + "algorithm: {kind: fedavg}\n",
    "no weights": SMALLEST.replace("mlp", "mlp, weights: nowhere.safetensors"),
    "no yaml": "data: [1\n",
    "no settings": "5\n",
}


def in_a_process(script: str) -> None:
    """Runs a script, whose assertions are this test's."""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_help_imports_nothing_heavy() -> None:
    names = ("train", "compare", "tune", "resize", "shards", "evaluate", "report")
    commands = [(0, ["--help"]), *((0, [name, "--help"]) for name in names), (2, ["trian"]), (2, ["train"])]
    in_a_process(COMMANDS.format(heavy=HEAVY, commands=commands))


def test_a_refused_file_imports_nothing_heavy(tmp_path: Path) -> None:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    good = write("good.yaml", SMALLEST)
    commands = [
        *(["train", write(f"{name}.yaml", text)] for name, text in TRAIN.items()),
        ["train", str(tmp_path / "absent.yaml")],
        *(["train", good, "--set", setting] for setting in ("rounds", "rouns=5", "rounds=[1", "model.kind.x=1")),
        ["compare", write("1.yaml", COMPARE % ("mlp", "") + "sedes: [1]\n")],
        ["compare", write("2.yaml", COMPARE % ("mlpp", ""))],
        ["compare", write("3.yaml", COMPARE % ("mlp", ", lr: -1"))],
        ["tune", write("4.yaml", TUNE % ("", "{loguniform: [2, 1]}"))],
        ["tune", write("5.yaml", TUNE % (", rouns: 5", "{uniform: [1, 2]}"))],
        ["tune", write("6.yaml", TUNE % ("", "{choice: [-1]}"))],
    ]
    in_a_process(COMMANDS.format(heavy=HEAVY, commands=[(2, command) for command in commands]))


def test_the_package_alone_imports_nothing_and_has_its_names() -> None:
    in_a_process(
        f"import sys, pisa_ray\nassert 'PisaTrainer' in dir(pisa_ray)\nassert not {HEAVY} & set(sys.modules)\n"
        "from pisa_ray import ConfigError\nassert not hasattr(pisa_ray, 'Sisa')\n"
        f"assert not {HEAVY} & set(sys.modules)\n"
    )


@pytest.mark.parametrize("name", sorted(pisa_ray.__all__))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pisa_ray, name).__name__ == name
    assert name in dir(pisa_ray)
