"""Which code of folders runs: what a configuration names and nothing else, of others' run directories only models."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import pisa_ray
from pisa_ray import ConfigError, named
from pisa_ray.cli.config import load
from pisa_ray.cli.evaluate import evaluate
from pisa_ray.cli.main import main
from pisa_ray.cli.recorded import prepared
from pisa_ray.named import Named, imported, is_installed
from pisa_ray.trainer.trust import check_installed

TRAIN = """
data: {dataset: digits}
partition: {kind: iid, shards: 2}
model: {factory: "own_net:make"}
rounds: 2
batch_size: 16
workers: 0
"""

#: Names of modules that libraries import late, or would if they were installed.
STANDARD = ["html", "profile", "queue", "random", "code", "cmd", "tokenize", "calendar", "numbers", "requests", "flask"]

OWN = """
from pathlib import Path
from torch import nn

Path("imported").touch()


def make(width=8):
    from own_layers import last
    return nn.Sequential(nn.Linear(64, width), last(width))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model of one's own, which imports a neighbour when it is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "own_layers.py").write_text("from torch import nn\ndef last(width): return nn.Linear(width, 10)\n")
    (tmp_path / "c.yaml").write_text(TRAIN)
    yield tmp_path
    for name in ("own_net", "own_layers", "breaks", "odd_package"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(folder):
    """A finished run whose config.yaml names that model, as somebody else may have sent it."""
    assert main(["train", "c.yaml", "--quiet", "--out", "run"]) == 0
    for name in ("own_net", "own_layers"):
        sys.modules.pop(name, None)
    (folder / "imported").unlink()
    return folder / "run"


def renamed(run, **changes):
    """The same run, whose config.yaml names other code."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        (config[section] if name else config)[name or section] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


# The current folder


def test_the_current_folder_comes_last_and_only_while_a_function_is_imported_or_called(folder):
    before = list(sys.path)
    (folder / "breaks.py").write_text("import sys\nassert sys.path[-1] == sys.argv[-1]\nraise SystemExit(0)\n")
    make = imported("own_net:make", "model.factory")
    assert sys.path == before
    assert make(width=4)(torch.zeros(1, 64)).shape == (1, 10)  # its neighbour is imported now
    assert sys.path == before
    with pytest.raises(ConfigError, match=r"model.factory is 'breaks:make', but it must be .* .(Assert|SystemExit)"):
        imported("breaks:make", "model.factory")
    assert sys.path == before


def test_a_function_of_a_folder_travels_as_its_name(folder, monkeypatch, tmp_path_factory):
    sent = pickle.dumps(imported("own_net:make", "model.factory"))
    assert b"Sequential" not in sent
    for name in ("own_net", "own_layers"):
        sys.modules.pop(name, None)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # as another process may be
    assert pickle.loads(sent)(width=4)(torch.zeros(1, 64)).shape == (1, 10)  # noqa: S301  (ours)


def test_a_process_that_works_for_a_command_looks_where_that_was_given(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(named, "_given_in", str(folder))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert imported("own_net:make", "model.factory") == Named("own_net:make", str(folder))


def test_what_is_installed_comes_before_a_file_of_that_name(folder):
    (folder / "torchvision.py").write_text("raise SystemExit(1)\n")
    for name in ("torch", "pyarrow", "torchvision"):
        assert is_installed(name)
    assert not is_installed("own_net")
    assert not is_installed("nowhere")
    assert imported("torch.nn:Linear", "model.factory") == Named("torch.nn:Linear", None)


@pytest.mark.ray
def test_files_named_as_modules_of_libraries_are_left_alone(folder):
    """By the driver, by Ray and by its workers; and the model beside them is found by all."""
    for name in STANDARD:
        (folder / f"{name}.py").write_text("raise SystemExit('mine')\n")
    command = [Path(sys.executable).parent / "pisa-ray", "train", "c.yaml", "--quiet", "--out", "run"]
    paths = [str(Path(named.__file__).parents[2])]
    done = subprocess.run(
        [*command, "--set", "workers=1", "--set", "patience=60"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert main(["report", "run"]) == 0


# Python's own functions


@pytest.mark.parametrize(
    "reference",
    [
        "os:system",
        "posix:system",
        "os.path:join",
        "subprocess:check_output",
        "builtins:eval",
        "sys:exit",
        "runpy:run_path",
        "shutil:rmtree",
        "importlib:import_module",
        "ctypes:CDLL",
        "pickle:load",
        "__main__:main",
        "torch.hub:urlopen",  # imported there, from Python's own library
    ],
)
def test_functions_of_python_itself_are_no_models(folder, reference):
    for key in ("model.factory", "data.transform"):
        with pytest.raises(ConfigError, match=f"^{key} is '{reference}', but .* is a part of Python, not a module"):
            imported(reference, key)


@pytest.mark.parametrize("trust", [[], ["--trust"]])
def test_nor_are_they_of_a_run_directory_whatever_the_user_says(run, capsys, trust):
    renamed(run, model__factory="os:system", model__args={"command": "touch ran"})
    assert main(["evaluate", "run", *trust]) == 2
    assert "model.factory is 'os:system', but os is a part of Python" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_a_partial_of_ones_own_is_none_of_them(folder):
    (folder / "own_net.py").write_text(
        "from functools import partial\nfrom torch import nn\nmake = partial(nn.Linear, 64, 10)"
    )
    assert imported("own_net:make", "model.factory")().weight.shape == (10, 64)


# Other people's run directories


def test_code_of_a_run_directory_is_run_only_if_it_is_trusted(run, capsys):
    assert main(["evaluate", "run"]) == 2
    told = capsys.readouterr().err
    assert "model.factory is 'own_net:make', code that " in told
    assert "use --trust to run it." in told
    assert not Path("imported").exists()
    assert main(["evaluate", "run", "--trust"]) == 0
    assert Path("imported").exists()


def test_a_transform_is_code_too(run):
    with pytest.raises(ConfigError, match=r"data.transform is 'own_net:make', code that .* use trust=True"):
        evaluate(renamed(run, model__factory="torch.nn:Linear", data__transform="own_net:make"))
    assert not Path("imported").exists()


@pytest.mark.parametrize("metrics", [["own_net:make", "nowhere:f"], ["accuracy", "own_net:make"], ["own_net:make"] * 2])
def test_each_of_several_metrics_is_code(run, metrics):
    with pytest.raises(ConfigError, match=r"metrics is 'own_net:make', code that .* use trust=True"):
        evaluate(renamed(run, model__factory="torch.nn:Linear", metrics=metrics))
    assert not Path("imported").exists()


def test_loading_the_best_weights_runs_no_code_of_a_method_either(run):
    settings = {"algorithm__kind": "own_net:Method", "checkpoint__best_by": "train_loss"}
    with pytest.raises(ConfigError, match=r"algorithm.kind is 'own_net:Method', code that .* use trust=True"):
        pisa_ray.load(renamed(run, **settings), best=True, model=lambda: torch.nn.Linear(64, 10))
    assert not Path("imported").exists()


def test_asking_for_shards_runs_no_code_either(run):
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    with pytest.raises(ConfigError, match="use trust=True to run it"):
        prepared(recorded, run, trust=False)
    assert not Path("imported").exists()
    assert len(prepared(recorded, run, trust=True).job.shards) == 2


def test_reports_and_resizes_import_nothing(run):
    assert main(["report", "run"]) == 0
    assert main(["resize", "run", "2"]) == 2  # nothing goes on there
    assert not Path("imported").exists()


def test_modules_of_installed_packages_are_models(run):
    renamed(run, model__factory="torch.nn:Linear", model__args={"in_features": 64, "out_features": 10})
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    assert len(prepared(recorded, run, trust=False).job.shards) == 2


@pytest.fixture
def packages(tmp_path_factory, monkeypatch):
    """A folder that counts as one of installed packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    monkeypatch.setattr(named.site, "getsitepackages", lambda: [str(folder)])
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_function_of_an_installed_package_needs_no_trust(run, packages):
    (packages / "odd_package").mkdir()
    (packages / "odd_package" / "__init__.py").write_text("")
    (packages / "odd_package" / "nets.py").write_text(
        OWN.replace("from own_layers import last", "last = lambda n: nn.Linear(n, 10)")
    )
    assert evaluate(renamed(run, model__factory="odd_package.nets:make"))["shards"]


def test_a_package_that_is_spread_over_folders_is_not_installed(run, packages):
    (packages / "odd_package").mkdir()
    assert is_installed("odd_package")
    Path("odd_package").mkdir()
    sys.path.append(str(Path.cwd()))
    try:
        assert not is_installed("odd_package")
    finally:
        sys.path.pop()


@pytest.mark.parametrize(
    "reference",
    ["own_net:make", "nowhere:f", "torch:load", "torch.hub:load", "numpy:load", "joblib:load", "jinja2:Template",
     "filelock:FileLock", "pisa_ray.cli.main:main", "ray:init", "pisa_ray.named:imported", "pip:main", ":f", "",
     "own_net"],
)  # fmt: skip
def test_what_else_needs_trust(folder, reference):
    with pytest.raises(ConfigError, match=r"^model.factory is '"):
        check_installed(reference, "model.factory", folder)
    assert not Path("imported").exists()


def test_a_configuration_of_ones_own_needs_no_trust(folder):
    config = load(Path("c.yaml"))
    assert config.model.factory == "own_net:make"
    assert main(["train", "c.yaml", "--quiet", "--out", "again"]) == 0
